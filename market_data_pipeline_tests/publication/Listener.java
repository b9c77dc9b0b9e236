import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import java.nio.charset.StandardCharsets;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Collectors;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.kafka.annotation.EnableKafka;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.listener.DefaultErrorHandler;
import org.springframework.kafka.support.serializer.JsonDeserializer;
import org.springframework.messaging.handler.annotation.Header;
import org.springframework.util.backoff.FixedBackOff;

/** Runs the listener of docs/contracts.md until it is idle, and prints each ticker it handled. */
@Configuration
@EnableKafka
public class Listener {
    static Properties settings;

    @JsonIgnoreProperties(ignoreUnknown = true)
    public static class Quote {
        public String ticker;
    }

    @Bean
    ConcurrentKafkaListenerContainerFactory<String, Quote> kafkaListenerContainerFactory() {
        Map<String, Object> properties = settings.stringPropertyNames().stream()
                .collect(Collectors.toMap(name -> name, settings::getProperty));
        var factory = new ConcurrentKafkaListenerContainerFactory<String, Quote>();
        factory.setConsumerFactory(new DefaultKafkaConsumerFactory<>(
                properties, new StringDeserializer(), new JsonDeserializer<>(Quote.class)));
        factory.setCommonErrorHandler(new DefaultErrorHandler(new FixedBackOff(0, 1)));
        return factory;
    }

    @Bean
    Consumer consumer() {
        return new Consumer();
    }

    public static class Consumer {
        static final ConcurrentLinkedQueue<String> tickers = new ConcurrentLinkedQueue<>();
        private boolean failed;

        /** Fails once, as a database does now and then. */
        void handle(Quote quote) {
            if (!failed) {
                failed = true;
                throw new IllegalStateException("once");
            }
            tickers.add(quote.ticker);
        }

        // THE LISTENER
    }

    public static void main(String[] arguments) throws Exception {
        settings = new Properties();
        settings.load(System.in);
        try (var context = new AnnotationConfigApplicationContext(Listener.class)) {
            for (int before = -1; before < Consumer.tickers.size() || before == 0; ) {
                before = Consumer.tickers.size();
                Thread.sleep(2000);
            }
        }
        Consumer.tickers.forEach(System.out::println);
    }
}
