package main

import (
	"log"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	madeUp      = "/market-data-pipeline/made-up-quotes"
	rememberIDs = 100_000
)

var (
	handled = map[string]bool{}
	oldest  []string
)

// onRecord hands each quote to handle once. The events of the script that the pipeline replaced
// have no headers.
func onRecord(record *kgo.Record) error {
	id := header(record, "ce_id")
	if header(record, "ce_source") == madeUp || handled[id] {
		return nil
	}
	quote, err := read(record.Value)
	if err != nil {
		log.Printf("the record at %d/%d is no quote and is skipped: %v", record.Partition, record.Offset, err)
		return nil
	}
	if err := handle(quote); err != nil || id == "" {
		return err
	}
	handled[id] = true
	oldest = append(oldest, id)
	if len(oldest) > rememberIDs {
		delete(handled, oldest[0])
		oldest = oldest[1:]
	}
	return nil
}

func header(record *kgo.Record, name string) string {
	for _, each := range record.Headers {
		if each.Key == name {
			return string(each.Value)
		}
	}
	return ""
}
