// Package report holds what a benchmark found: rows that compare sides measured in one run,
// each with its target, its spread and the command that repeats it; and prints them as a
// table, as JSON, for benchstat, and as plots.
package report

import (
	"fmt"
	"math"
	"slices"
)

// A Spread is the middle half of a row's rounds: the lower quartile, the median and the upper
// quartile, of few rounds interpolated between neighbours.
type Spread struct {
	Low    float64 `json:"lower_quartile"`
	Median float64 `json:"median"`
	High   float64 `json:"upper_quartile"`
}

// Of is the spread of some values, in any order. Of none it is zero.
func Of(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	return Spread{Quantile(sorted, 0.25), Quantile(sorted, 0.5), Quantile(sorted, 0.75)}
}

// Quantile is the value below which the share q of sorted values lies, interpolated.
func Quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

func (s Spread) String() string {
	if s.Low == s.High {
		return number(s.Median)
	}
	return fmt.Sprintf("%s [%s, %s]", number(s.Median), number(s.Low), number(s.High))
}

// number writes three digits that count, and whole numbers from 100.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case a >= 9.995:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.9995:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
