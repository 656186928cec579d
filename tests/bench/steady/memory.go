package steady

import (
	"context"
	"fmt"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/load"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/report"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/run"
	"github.com/wasm-e2ee/wasm-e2ee/tests/bench/stand"
)

// settle is how long a sidecar rests before its memory is read. Go gives memory back for some
// minutes after it was last needed: both readings come equally long after the last record.
const settle = 5 * time.Second

// Memory compares a sidecar's resident memory after many records with that after few.
func Memory(ctx context.Context, o run.Options) ([]report.Row, error) {
	few, many := run.Pick(o, 100_000, 10_000), run.Pick(o, 10_000_000, 200_000)
	s, err := stand.Start(ctx, o, false)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	job := load.Job{Bootstrap: s.Sidecar.Addr, Topic: stand.SealedTopics + "memory", Partitions: 6, Size: 100, Batch: load.JavaBatch}
	if err := s.CreateTopic(ctx, job.Topic, job.Partitions); err != nil {
		return nil, err
	}
	read := func() (readings []float64, err error) {
		time.Sleep(settle)
		for range 5 {
			time.Sleep(time.Second)
			rss, err := stand.RSS(s.Sidecar.Pid())
			if err != nil {
				return nil, err
			}
			readings = append(readings, float64(rss)/1e6)
		}
		return readings, nil
	}
	idle, err := read()
	if err != nil {
		return nil, err
	}
	step := few // the same load all the time: only the number differs
	var after [][]float64
	for sent := 0; sent < many; sent += step {
		if _, err := load.Produce(ctx, job, step); err != nil {
			return nil, err
		}
		if sent+step == few || sent+step >= many {
			mb, err := read()
			if err != nil {
				return nil, err
			}
			o.Log("%d records: %s MB", sent+step, report.Of(mb))
			after = append(after, mb)
		}
	}
	row := report.Compare(fmt.Sprintf("RSS after %d records of 100 B, to after %d", many, few), "MB RSS", report.AtMost(1.05),
		report.Side{Name: "after many", Values: after[1]}, report.Side{Name: "after few", Values: after[0]}, report.Side{Name: "idle", Values: idle})
	row.Note = fmt.Sprintf("one sidecar that seals for 6 partitions, %v after the last record", settle)
	return []report.Row{row}, nil
}
