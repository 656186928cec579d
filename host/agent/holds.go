package agent

import "github.com/wasm-e2ee/wasm-e2ee/abi"

// Holds returns those of kids whose keys a data plane elsewhere may keep: topic secrets that
// this node holds, and epochs in which it seals (PROTOCOL.md §2.12). What was erased here, or
// replaced, is not among them.
func (a *Agent) Holds(kids []abi.Kid) []abi.Kid {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() != nil {
		return nil
	}
	sealing := make(map[abi.Kid]bool)
	for _, e := range a.producer.Epochs() {
		sealing[e.Kid] = true
	}
	var held []abi.Kid
	for _, kid := range kids {
		if sealing[kid] || a.consumer.Holds(kid) {
			held = append(held, kid)
		}
	}
	return held
}
