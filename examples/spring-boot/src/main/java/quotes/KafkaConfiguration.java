package quotes;

import com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.kafka.listener.DefaultErrorHandler;
import org.springframework.kafka.support.converter.RecordMessageConverter;
import org.springframework.kafka.support.converter.StringJsonMessageConverter;
import org.springframework.util.backoff.ExponentialBackOff;

@Configuration
class KafkaConfiguration {
    private static final Logger log = LoggerFactory.getLogger(KafkaConfiguration.class);

    /** Makes a Quote of the text of an event. */
    @Bean
    RecordMessageConverter quotes(ObjectMapper mapper) {
        return new StringJsonMessageConverter(mapper);
    }

    /**
     * Has a quote handled again until that succeeds: Spring's default drops it after ten times. Only
     * a record that no Quote can be made of is skipped.
     */
    @Bean
    DefaultErrorHandler triesAgain() {
        var pauses = new ExponentialBackOff(1_000, 2);
        pauses.setMaxInterval(30_000);
        var handler = new DefaultErrorHandler(
                (record, error) -> log.error("{} is no quote and is skipped", place(record)), pauses);
        handler.setRetryListeners((record, error, attempt) ->
                log.warn("{} not handled, attempt {}: {}", place(record), attempt, cause(error)));
        handler.setSeekAfterError(false); // the other records of the poll are not fetched again
        return handler;
    }

    private static String place(ConsumerRecord<?, ?> record) {
        return record.topic() + "-" + record.partition() + "@" + record.offset();
    }

    private static String cause(Throwable error) {
        return error.getCause() == null ? error.toString() : cause(error.getCause());
    }
}
