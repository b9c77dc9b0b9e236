package main

import (
	"cmp"
	"fmt"
	"os"
	"time"
)

// handle is what is done with a quote: put your own code here. It returns an error if it could not
// be done.
func handle(quote Quote) error {
	name := cmp.Or(os.Getenv("PRICES_FILE"), "prices.tsv")
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	shortName := ""
	if quote.ShortName != nil {
		shortName = *quote.ShortName
	}
	at := quote.UpdatedAt.Format(time.RFC3339)
	_, err = fmt.Fprintf(file, "%s\t%s\t%s\t%s\n", quote.Ticker, quote.Price, at, shortName)
	return err
}
