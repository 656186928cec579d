package envoy

import (
	"maps"
	"slices"
	"strconv"

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
	if v.call.root != 0 && now-v.call.at >= lostTime {
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
	v.call = call{root: root, at: now}
	if ok = v.host.Select(root); ok {
		v.call.token, ok = v.host.Call(v.plane.cfg.AgentCluster, next)
	}
	if !ok {
		v.call = call{}
		channel.Answered(0, nil, now)
		if v.quiet.allow("call", now) {
			v.log(plugin.LevelWarn, "the proxy makes no call to the agent (hint: agent_cluster names one of its clusters, and proxy_http_call must be allowed)",
				"agent_cluster", v.plane.cfg.AgentCluster)
		}
	}
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
		status := 0
		if headers > 0 {
			// A status that is no number is none.
			status, _ = strconv.Atoi(string(v.host.Header(":status")))
		}
		var body []byte
		if status != 0 {
			body = v.host.Buffer(plugin.BufferCallBody, nil)
		}
		v.plane.channel.Answered(status, body, now)
		v.ask(now)
	})
	v.resumeAll()
}

// lost gives up the call that a root context made which is no more.
func (c *call) lost(v *VM, root uint32) {
	if c.root == root && root != 0 {
		*c = call{}
		v.plane.channel.Answered(0, nil, v.host.Now())
	}
}
