package main

import (
	"encoding/json"
	"fmt"
	"time"
)

// Quote is the price of an instrument.
type Quote struct {
	Ticker    string      `json:"ticker"`
	Name      *string     `json:"name"`
	ShortName *string     `json:"short_name"`
	Price     json.Number `json:"price"`
	Volume    *int64      `json:"volume"`
	UpdatedAt instant     `json:"updated_at"`
}

// instant reads both forms of updated_at: seconds and ISO 8601.
type instant struct{ time.Time }

func (i *instant) UnmarshalJSON(value []byte) error {
	if string(value) == "null" {
		return nil
	}
	var seconds int64
	if json.Unmarshal(value, &seconds) == nil {
		i.Time = time.Unix(seconds, 0).UTC()
		return nil
	}
	return i.Time.UnmarshalJSON(value)
}

func read(value []byte) (Quote, error) {
	var quote Quote
	if err := json.Unmarshal(value, &quote); err != nil {
		return quote, err
	}
	if quote.Ticker == "" || quote.Price == "" || quote.UpdatedAt.IsZero() {
		return quote, fmt.Errorf("%s has no ticker, price or updated_at", value)
	}
	return quote, nil
}
