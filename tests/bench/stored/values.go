package stored

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
)

// documentSize is what the JSON records are padded to with notes, in bytes.
const documentSize = 1 << 10

// An order is a JSON record such as shops exchange: names and words that repeat, and numbers
// that do not.
type order struct {
	ID       string `json:"order_id"`
	Customer struct {
		ID    string `json:"id"`
		Name  string `json:"name"`
		Email string `json:"email"`
		City  string `json:"city"`
	} `json:"customer"`
	Currency string  `json:"currency"`
	Total    float64 `json:"total"`
	Items    []item  `json:"items"`
	Note     string  `json:"note"`
}

type item struct {
	SKU      string  `json:"sku"`
	Name     string  `json:"name"`
	Quantity int     `json:"quantity"`
	Price    float64 `json:"price"`
}

var (
	names  = []string{"Ada", "Grace", "Edsger", "Barbara", "Donald", "Radia", "Leslie", "Frances", "Ken", "Margaret"}
	cities = []string{"Bergen", "Lisbon", "Osaka", "Quito", "Nairobi", "Hobart", "Tartu", "Leeds"}
	goods  = []string{"kettle", "lamp", "notebook", "umbrella", "backpack", "headphones", "desk", "chair", "mug", "blanket"}
	words  = []string{"please", "leave", "with", "the", "neighbour", "if", "nobody", "is", "at", "home", "ring", "twice", "fragile", "gift", "wrapping", "before", "noon"}
)

func document(r *rand.Rand) []byte {
	pick := func(from []string) string { return from[r.IntN(len(from))] }
	var o order
	o.ID = fmt.Sprintf("%016x", r.Uint64())
	o.Customer.ID = fmt.Sprintf("c-%08d", r.IntN(1e8))
	o.Customer.Name, o.Customer.City = pick(names), pick(cities)
	o.Customer.Email = fmt.Sprintf("%s.%d@example.com", o.Customer.Name, r.IntN(10000))
	o.Currency = "EUR"
	for range 4 {
		i := item{SKU: fmt.Sprintf("%010d", r.Int64N(1e10)), Name: pick(goods), Quantity: 1 + r.IntN(5), Price: float64(r.IntN(20000)) / 100}
		o.Total += i.Price * float64(i.Quantity)
		o.Items = append(o.Items, i)
	}
	for {
		b, err := json.Marshal(o)
		if err != nil {
			panic(err) // strings and numbers always encode
		}
		if len(b) >= documentSize {
			return b
		}
		o.Note += pick(words) + " "
	}
}

// hundred is a line of 100 bytes.
func hundred(r *rand.Rand) []byte {
	line := fmt.Appendf(nil, "sensor=%04d temperature=%.3f humidity=%.3f sequence=%08d ", r.IntN(10000), 40*r.Float64(), 100*r.Float64(), r.IntN(1e8))
	return append(line, bytes.Repeat([]byte{'.'}, max(0, 100-len(line)))...)
}
