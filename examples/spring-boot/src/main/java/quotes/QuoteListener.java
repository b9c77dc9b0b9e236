package quotes;

import java.io.IOException;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.messaging.handler.annotation.Header;
import org.springframework.messaging.handler.annotation.Payload;
import org.springframework.stereotype.Component;

/** Hands each quote to the handler once. */
@Component
class QuoteListener {
    private static final Logger log = LoggerFactory.getLogger(QuoteListener.class);
    private static final String MADE_UP = "/market-data-pipeline/made-up-quotes";

    private final QuoteHandler handler;
    private final Set<String> handled = Collections.newSetFromMap(new LinkedHashMap<>() {
        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
            return size() > 100_000;
        }
    });

    QuoteListener(QuoteHandler handler) {
        this.handler = handler;
    }

    /** The events of the script that the pipeline replaced have no headers. */
    @KafkaListener(topics = "${quotes.topic}")
    synchronized void onQuote(
            @Payload Quote quote,
            @Header(name = "ce_id", required = false) String id,
            @Header(name = "ce_source", required = false) String source)
            throws IOException {
        if (MADE_UP.equals(source)) {
            log.warn("{} is a made-up price of a sandbox: ignored", quote);
        } else if (!handled.contains(id)) {
            handler.handle(quote);
            if (id != null) {
                handled.add(id);
            }
        }
    }
}
