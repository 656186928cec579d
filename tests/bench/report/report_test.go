package report

import (
	"strings"
	"testing"
)

func TestARowFallsShortOnlyByMoreThanItsSpread(t *testing.T) {
	for _, c := range []struct {
		target *Target
		values []float64
		want   Verdict
	}{
		{AtLeast(10), []float64{10, 11, 12, 9, 10}, Reached},
		{AtLeast(10), []float64{8, 9, 9, 11, 12}, Near},
		{AtLeast(10), []float64{8, 8, 9, 9, 12}, Short},
		{AtMost(1), []float64{1, 1, 1}, Reached},
		{AtMost(1), []float64{0.8, 0.9, 1.1, 1.2, 1.3}, Near},
		{AtMost(1), []float64{1.1, 1.2, 1.3}, Short},
		{AtMost(0), []float64{0}, Reached},
		{AtMost(1), []float64{nan()}, Short},
		{nil, []float64{5}, NotAsked},
	} {
		r := Single("x", "u", c.target, Side{"s", c.values})
		if got := r.Verdict(); got != c.want {
			t.Errorf("%v of %v, target %v: %q, want %q", r.Result(), c.values, c.target, got, c.want)
		}
	}
}

func nan() float64 { zero := 0.0; return zero / zero }

func TestRatiosArePairedByRound(t *testing.T) {
	// The machine halves its speed in the second round; the ratio does not move.
	r := Compare("x", "MB/s", nil, Side{"a", []float64{100, 50, 100}}, Side{"b", []float64{200, 100, 200}})
	if got := r.Result(); got != (Spread{0.5, 0.5, 0.5}) {
		t.Errorf("%v", got)
	}
}

func TestBenchstatLinesAreThatOfGoTest(t *testing.T) {
	var b strings.Builder
	if err := Benchstat(&b, []Row{{Section: "module", Name: "seal, 1 KiB", Unit: "MB/s", Sides: []Side{{"native", []float64{1.5}}}}}); err != nil {
		t.Fatal(err)
	}
	if want := "Benchmarkmodule/seal__1_KiB/side=native 1 1.5 MB/s\n"; !strings.HasSuffix(b.String(), want) {
		t.Errorf("%s, want the last line %s", b.String(), want)
	}
}
