package quotes;

import static java.nio.file.StandardOpenOption.APPEND;
import static java.nio.file.StandardOpenOption.CREATE;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.stereotype.Component;

/** What is done with a quote: put your own code here. It throws if it could not be done. */
@Component
class QuoteHandler {
    private final Path file;

    QuoteHandler(@Value("${quotes.file}") Path file) {
        this.file = file;
    }

    void handle(Quote quote) throws IOException {
        var line = "%s\t%s\t%s\t%s%n".formatted(
                quote.ticker(), quote.price(), quote.updatedAt(), quote.shortName());
        Files.writeString(file, line, CREATE, APPEND);
    }
}
