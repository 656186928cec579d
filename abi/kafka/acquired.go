package kafka

// AcquireBefore takes the records from the given offset on out of Acquired. A proxy that
// does not deliver them must do so: a client acknowledges acquired offsets for which it got
// no record as gaps, and the broker never sends them again. Left alone, they come back when
// the broker's acquisition lock runs out.
func (p *ShareFetchPartition) AcquireBefore(offset int64) error {
	r := reader{b: p.Acquired, flexible: true}
	if p.Acquired == nil {
		return nil
	}
	var kept []byte
	count := 0
	for n := r.array(19); n > 0; n-- {
		first, last, deliveries, tags := r.int64(), r.int64(), r.int16(), r.tags()
		if first >= offset {
			continue
		}
		w := writer{b: kept, flexible: true}
		w.int64(first)
		w.int64(min(last, offset-1))
		w.int16(deliveries)
		w.tags(tags)
		kept = w.b
		count++
	}
	if err := r.end(); err != nil {
		return err
	}
	w := writer{flexible: true}
	w.count(count)
	w.raw(kept)
	p.Acquired = w.b
	return nil
}
