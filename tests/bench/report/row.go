package report

import "fmt"

// A Side is one of the things that a row compares: one value per round.
type Side struct {
	Name   string    `json:"name"`
	Values []float64 `json:"values"`
}

// A Target is the line that a result has to reach.
type Target struct {
	Least bool    `json:"at_least"` // else at most
	Limit float64 `json:"limit"`
}

// AtLeast and AtMost are the two kinds of target.
func AtLeast(limit float64) *Target { return &Target{true, limit} }
func AtMost(limit float64) *Target  { return &Target{false, limit} }

func (t *Target) String() string {
	switch {
	case t == nil:
		return ""
	case t.Least:
		return fmt.Sprintf(">= %v", t.Limit)
	}
	return fmt.Sprintf("<= %v", t.Limit)
}

// A Row is one figure. Its result is either the ratio of its first side to its second, round
// by round, or the first side itself.
type Row struct {
	Section string  `json:"section"`
	Name    string  `json:"name"`
	Unit    string  `json:"unit"` // of the sides
	Sides   []Side  `json:"sides"`
	Ratio   bool    `json:"ratio"`            // the result is first / second, without a unit
	Target  *Target `json:"target,omitempty"` // nil: nothing is asked of it
	Command string  `json:"command"`          // what repeats it
	Match   string  `json:"-"`                // of Command: measures it without the section's other rows
	Note    string  `json:"note,omitempty"`
}

// Compare makes a row of the ratio of two or more sides, the first to the second.
func Compare(name, unit string, target *Target, sides ...Side) Row {
	return Row{Name: name, Unit: unit, Sides: sides, Ratio: true, Target: target}
}

// Single makes a row of one side alone.
func Single(name, unit string, target *Target, side Side) Row {
	return Row{Name: name, Unit: unit, Sides: []Side{side}, Target: target}
}

// Result is the row's spread.
func (r Row) Result() Spread {
	first := r.Sides[0].Values
	if !r.Ratio {
		return Of(first)
	}
	second := r.Sides[1].Values
	ratios := make([]float64, min(len(first), len(second)))
	for i := range ratios {
		ratios[i] = first[i] / second[i]
	}
	return Of(ratios)
}

// A Verdict says how a result stands to its target.
type Verdict string

const (
	NotAsked Verdict = ""
	Reached  Verdict = "reached"
	Near     Verdict = "within the spread" // the median falls short, by less than the spread
	Short    Verdict = "FALLS SHORT"
)

// Verdict compares the result with the target: it falls short where the better quartile of
// its rounds does too. A result that is no number falls short.
func (r Row) Verdict() Verdict {
	if r.Target == nil {
		return NotAsked
	}
	s, limit := r.Result(), r.Target.Limit
	if !r.Target.Least {
		s, limit = Spread{-s.High, -s.Median, -s.Low}, -limit
	}
	switch {
	case s.Median >= limit:
		return Reached
	case s.High >= limit:
		return Near
	}
	return Short
}
