package envoy

import (
	"slices"
	"strconv"

	"maps"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// CallTimeout in ms is what the host gives the agent for an answer. After lostTime an answer
// that never came counts as none.
const (
	CallTimeout = 5000
	lostTime    = 2 * CallTimeout
)

// A call is the HTTP call that is under way.
type call struct {
	root, token uint32 // root is 0 where there is none
	at          uint64 // Unix ms
}

// ask makes the call to the agent that is due now, if any. It selects a root context: what
// follows it in a callback must select its own again.
func (v *VM) ask(now uint64) {
	channel := v.plane.channel
	if v.call.root != 0 && now-v.call.at > lostTime {
		v.call = call{}
		channel.Answered(0, nil, now)
	}
	if len(v.roots) == 0 {
		return
	}
	next, ok := channel.Next(now)
	if !ok {
		return
	}
	root := slices.Min(slices.Collect(maps.Keys(v.roots)))
	v.host.Select(root)
	token, ok := v.host.Call(v.plane.cfg.AgentCluster, next)
	if !ok {
		channel.Answered(0, nil, now)
		v.agentFailed("the host makes no call to cluster "+v.plane.cfg.AgentCluster, "is there such a cluster?", now)
		return
	}
	v.call = call{root, token, now}
}

// OnHTTPCallResponse takes the answer to a call, and goes on with what waited for it. Without
// headers there was none.
func (v *VM) OnHTTPCallResponse(token, headers uint32) {
	if v.plane == nil || v.call.root == 0 || v.call.token != token {
		return
	}
	v.call = call{}
	v.guard(nil, func() {
		now := v.host.Now()
		if headers == 0 {
			v.plane.channel.Answered(0, nil, now)
			v.agentFailed("no answer", "is wasm-e2ee agent running?", now)
			return
		}
		status, err := strconv.Atoi(string(v.host.Header(":status")))
		if err != nil {
			status = 0
		}
		failures := v.plane.channel.Stats().Failures
		v.plane.channel.Answered(status, v.host.Buffer(plugin.BufferCallBody), now)
		switch {
		case status >= 500:
			v.agentFailed("HTTP status "+strconv.Itoa(status), "is wasm-e2ee agent running, and agent_cluster right?", now)
		case v.plane.channel.Stats().Failures != failures:
			v.agentFailed("HTTP status "+strconv.Itoa(status), "a restarted agent begins anew; else: is it of this realm, and paired with this key?", now)
		}
		v.ask(now)
	})
	v.resumeAll()
}

// lost gives up the call that a root context made which is no more.
func (c *call) lost(v *VM, root uint32) {
	if c.root == root {
		*c = call{}
		v.plane.channel.Answered(0, nil, v.host.Now())
	}
}

func (v *VM) agentFailed(reason, hint string, now uint64) {
	if v.quiet.allow("agent "+reason, now) {
		v.log(plugin.LevelWarn, "no keys from the agent", "reason", reason, "hint", hint)
	}
}
