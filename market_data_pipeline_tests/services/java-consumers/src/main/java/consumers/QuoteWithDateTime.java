package consumers;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import java.math.BigDecimal;
import java.time.LocalDateTime;

/** Needs KAFKA_UPDATED_AT_FORMAT=iso8601. */
@JsonIgnoreProperties(ignoreUnknown = true)
public class QuoteWithDateTime {
    public String ticker;
    public String name;
    public BigDecimal price;
    public Long volume;

    @JsonProperty("updated_at")
    public LocalDateTime updatedAt;

    @Override
    public String toString() {
        return String.join("|", ticker, name, String.valueOf(price), String.valueOf(volume),
                String.valueOf(updatedAt));
    }
}
