package issuer

import (
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

func TestAnAnswerIsWrittenAgainForWhoAsksAgain(t *testing.T) {
	var o outbox
	answer := keyring.Record{Key: wire.EnrolmentKey{Step: 2}.Append(nil), Value: []byte("second")}
	question := wire.EnrolmentKey{Step: 1}.Append(nil)
	o.note(question, []byte("first"))
	asked := o.read
	if !o.add(answer, asked) || len(o.records) != 1 {
		t.Fatal("the first question is not answered")
	}
	o.note(answer.Key, answer.Value) // read back
	if o.add(answer, asked); len(o.records) != 0 {
		t.Error("a question from before the answer is answered twice")
	}
	o.note(question, []byte("first"))
	if o.add(answer, o.read); len(o.records) != 1 {
		t.Error("a node that asks again, having seen no answer, gets none")
	}
}
