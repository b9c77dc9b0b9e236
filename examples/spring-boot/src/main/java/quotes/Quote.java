package quotes;

import static java.util.Objects.requireNonNull;

import com.fasterxml.jackson.databind.PropertyNamingStrategies.SnakeCaseStrategy;
import com.fasterxml.jackson.databind.annotation.JsonNaming;
import java.math.BigDecimal;
import java.time.Instant;

/** The price of an instrument. {@code Instant} reads both forms of {@code updated_at}. */
@JsonNaming(SnakeCaseStrategy.class)
public record Quote(
        String ticker, String name, String shortName, BigDecimal price, Long volume, Instant updatedAt) {

    /** Without these it is no quote, and the listener does not get it. */
    public Quote {
        requireNonNull(ticker, "ticker");
        requireNonNull(price, "price");
        requireNonNull(updatedAt, "updated_at");
    }
}
