// Hands each quote on the topic to handle once: go run .
package main

import (
	"cmp"
	"context"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const pause = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	servers := cmp.Or(os.Getenv("KAFKA_BOOTSTRAP_SERVERS"), "localhost:9092")
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(servers, ",")...),
		kgo.ConsumerGroup("quotes-example"),
		kgo.ConsumeTopics(cmp.Or(os.Getenv("KAFKA_TOPIC"), "trading-assets-market-data-v1")),
		// A new group begins with what is on the topic, not with the next window.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// Nothing of a window that was rolled back.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Commit what was marked, not all that was received.
		kgo.AutoCommitMarks(),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	consume(ctx, client)
}

// consume marks an event for the commit when it is handled; until then it is handled again.
func consume(ctx context.Context, client *kgo.Client) {
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		fetches.EachError(func(topic string, partition int32, err error) {
			log.Printf("%s/%d: %v", topic, partition, err)
		})
		for _, record := range fetches.Records() {
			for err := onRecord(record); err != nil; err = onRecord(record) {
				log.Printf("not handled, again in %v: %v", pause, err)
				select {
				case <-time.After(pause):
				case <-ctx.Done():
					return
				}
			}
			client.MarkCommitRecords(record)
		}
	}
}
