package consumers;

import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RecordDeserializationException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.springframework.kafka.support.serializer.JsonDeserializer;

/** Prints what is on a topic, one line a record: {@code Main ADDRESS TOPIC CLASS}. */
public final class Main {
    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        Map<String, Object> settings = Map.of(
                ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0],
                ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed",
                ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        Class<?> type = Class.forName("consumers." + arguments[2]);
        try (JsonDeserializer<?> values = new JsonDeserializer<>(type);
                KafkaConsumer<String, ?> consumer =
                        new KafkaConsumer<>(settings, new StringDeserializer(), values)) {
            readToTheEnd(consumer, arguments[1], out);
        } catch (RecordDeserializationException error) {
            out.println("ERROR " + rootOf(error).getMessage().lines().findFirst().orElse(""));
        }
    }

    private static void readToTheEnd(
            KafkaConsumer<String, ?> consumer, String topic, PrintStream out) {
        List<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
                .map(info -> new TopicPartition(topic, info.partition()))
                .collect(Collectors.toList());
        consumer.assign(partitions);
        consumer.seekToBeginning(partitions);
        Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
        while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
            for (ConsumerRecord<String, ?> record : consumer.poll(Duration.ofSeconds(1))) {
                out.println(record.key() + "|" + record.value());
            }
        }
    }

    private static Throwable rootOf(Throwable error) {
        return error.getCause() == null ? error : rootOf(error.getCause());
    }
}
