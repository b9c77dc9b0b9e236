package consumers;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import java.math.BigDecimal;

/** Reads what is published by default. */
@JsonIgnoreProperties(ignoreUnknown = true)
public class QuoteWithSeconds {
    public String ticker;
    public String name;
    public BigDecimal price;
    public Long volume;

    @JsonProperty("updated_at")
    public long updatedAt;

    @Override
    public String toString() {
        return String.join("|", ticker, name, String.valueOf(price), String.valueOf(volume),
                String.valueOf(updatedAt));
    }
}
