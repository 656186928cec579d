package proxywasm

import (
	"context"
	"fmt"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// rootID is the root context's number; streams follow.
const rootID = 1

// callbacks are the functions of the specification that a stream filter may export, with the
// number of their parameters and of their results. All are i32.
var callbacks = map[string][2]int{
	"_initialize":                          {0, 0},
	"malloc":                               {1, 1},
	"proxy_on_memory_allocate":             {1, 1},
	"proxy_on_context_create":              {2, 0},
	"proxy_on_vm_start":                    {2, 1},
	"proxy_on_configure":                   {2, 1},
	"proxy_on_tick":                        {1, 0},
	"proxy_on_new_connection":              {1, 1},
	"proxy_on_downstream_data":             {3, 1},
	"proxy_on_upstream_data":               {3, 1},
	"proxy_on_downstream_connection_close": {2, 0},
	"proxy_on_upstream_connection_close":   {2, 0},
	"proxy_on_http_call_response":          {5, 0},
	"proxy_on_done":                        {1, 1},
	"proxy_on_log":                         {1, 0},
	"proxy_on_delete":                      {1, 0},
}

// A vm is one virtual machine. It is for one goroutine.
type vm struct {
	p      *Proxy
	w      *worker // nil for one that only tries something
	ctx    context.Context
	module api.Module
	memory api.Memory
	fns    map[string]api.Function
	failed bool

	initializing bool // only logging is allowed
	configuring  bool // the plugin's configuration can be read
	depth        int
	current      uint32 // the context that is called, or whose call is being made
	effective    uint32 // what the filter set instead; 0 is nothing
	after        []func()

	streams map[uint32]*connection
	lastID  uint32

	period   time.Duration
	nextTick time.Time

	calls     map[uint32]context.CancelFunc
	lastCall  uint32
	answer    *answer // while proxy_on_http_call_response runs
	callError uint32  // what proxy_get_status tells
	callText  string

	names      map[uint32]string // of metrics
	lastMetric [3]uint32
}

// vmKey is how a host function finds the machine that calls it.
type vmKey struct{}

// load compiles a module and refuses what Envoy would not link.
func (p *Proxy) load(binary []byte) (wazero.CompiledModule, error) {
	module, err := p.runtime.CompileModule(p.ctx, binary)
	if err != nil {
		return nil, fmt.Errorf("module does not compile: %w", err)
	}
	exports := module.ExportedFunctions()
	_, v020 := exports["proxy_abi_version_0_2_0"]
	if _, v021 := exports["proxy_abi_version_0_2_1"]; !v020 && !v021 {
		return nil, fmt.Errorf("module exports no proxy_abi_version_0_2_1 (hint: it is no Proxy-Wasm filter)")
	}
	for name, want := range callbacks {
		if f, found := exports[name]; found && (!allI32(f.ParamTypes(), want[0]) || !allI32(f.ResultTypes(), want[1])) {
			return nil, fmt.Errorf("module's %s has another signature than the specification's", name)
		}
	}
	if exports["malloc"] == nil && exports["proxy_on_memory_allocate"] == nil {
		return nil, fmt.Errorf("module exports no proxy_on_memory_allocate")
	}
	hosts := map[string]map[string]function{"env": proxyFunctions, "wasi_snapshot_preview1": wasiFunctions}
	for _, f := range module.ImportedFunctions() {
		from, name, _ := f.Import()
		host, found := hosts[from][name]
		if !found {
			return nil, fmt.Errorf("module imports %s.%s, which Envoy does not have", from, name)
		}
		if string(host.params) != string(f.ParamTypes()) || string(host.results()) != string(f.ResultTypes()) {
			return nil, fmt.Errorf("module imports %s.%s with another signature than Envoy's", from, name)
		}
	}
	for name, functions := range hosts {
		b := p.runtime.NewHostModuleBuilder(name)
		for name, f := range functions {
			b = b.NewFunctionBuilder().WithGoModuleFunction(f.host(name), f.params, f.results()).Export(name)
		}
		if _, err := b.Instantiate(p.ctx); err != nil {
			return nil, err
		}
	}
	return module, nil
}

func allI32(types []api.ValueType, n int) bool {
	for _, t := range types {
		if t != i32 {
			return false
		}
	}
	return len(types) == n
}

// newVM makes a machine and runs its _initialize.
func (p *Proxy) newVM(w *worker) (*vm, error) {
	v := &vm{p: p, w: w, fns: map[string]api.Function{}, streams: map[uint32]*connection{}, lastID: rootID,
		calls: map[uint32]context.CancelFunc{}, names: map[uint32]string{}, lastMetric: [3]uint32{}}
	v.ctx = context.WithValue(p.ctx, vmKey{}, v)
	var err error
	v.module, err = p.runtime.InstantiateModule(v.ctx, p.module, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, fmt.Errorf("module does not start: %w", err)
	}
	v.memory = v.module.Memory()
	for name := range callbacks {
		v.fns[name] = v.module.ExportedFunction(name)
	}
	if v.fns["malloc"] == nil {
		v.fns["malloc"] = v.fns["proxy_on_memory_allocate"]
	}
	v.initializing = true
	_, fine := v.call(0, "_initialize")
	v.initializing = false
	if !fine {
		v.close()
		return nil, fmt.Errorf("module does not start: _initialize failed")
	}
	return v, nil
}

// configuredVM makes a machine, its root context, and configures it.
func (p *Proxy) configuredVM(w *worker) (*vm, error) {
	v, err := p.newVM(w)
	if err != nil {
		return nil, err
	}
	refuse := func(by string) (*vm, error) {
		v.close()
		return nil, fmt.Errorf("module refused to start: %s", by)
	}
	v.configuring = true
	v.call(rootID, "proxy_on_context_create", rootID, 0)
	v.configuring = false
	if yes, fine := v.callOr(1, rootID, "proxy_on_vm_start", rootID, 0); !fine || yes == 0 {
		return refuse("proxy_on_vm_start")
	}
	v.configuring = true
	yes, fine := v.callOr(1, rootID, "proxy_on_configure", rootID, uint32(len(p.opts.Configuration)))
	v.configuring = false
	if !fine || yes == 0 {
		return refuse("proxy_on_configure")
	}
	if w != nil {
		w.loads++
	}
	return v, nil
}

func (v *vm) newStream(c *connection) uint32 {
	v.lastID++
	v.streams[v.lastID] = c
	return v.lastID
}

// call runs a callback for a context, then what it put off. It returns the callback's result, 0
// where it has none or the module does not export it; fine is false once the machine has failed.
func (v *vm) call(id uint32, name string, args ...uint32) (result uint32, fine bool) {
	return v.callOr(0, id, name, args...)
}

// callOr is call with another result for what the module does not export.
func (v *vm) callOr(missing, id uint32, name string, args ...uint32) (result uint32, fine bool) {
	if v.failed {
		return 0, false
	}
	f := v.fns[name]
	if f == nil {
		return missing, true
	}
	current, effective := v.current, v.effective
	v.current, v.effective = id, 0
	v.depth++
	stack := make([]uint64, max(len(args), 1))
	for i, a := range args {
		stack[i] = uint64(a)
	}
	err := f.CallWithStack(v.ctx, stack)
	v.depth--
	v.current, v.effective = current, effective
	if err != nil {
		v.fail(fmt.Errorf("%s: %w", name, err))
	}
	for v.depth == 0 && len(v.after) > 0 {
		f := v.after[0]
		v.after = v.after[1:]
		f()
	}
	return uint32(stack[0]), !v.failed
}

// fail ends the machine. Its streams find out when they next call it.
func (v *vm) fail(err error) {
	if !v.failed {
		v.failed = true
		v.p.log.add(LevelCritical, "machine failed: "+err.Error())
	}
}

// context is the number that host functions act on.
func (v *vm) context() uint32 {
	if v.effective != 0 && (v.effective == rootID || v.streams[v.effective] != nil) {
		return v.effective
	}
	return v.current
}

// stream is the connection that host functions act on; nil on the root context.
func (v *vm) stream() *connection { return v.streams[v.context()] }

// give writes b to memory that the module allocates, and its address and length to at and
// sizeAt.
func (v *vm) give(b []byte, at, sizeAt uint32) status {
	var ptr uint32
	if len(b) > 0 {
		v.depth++ // nothing that was put off runs inside a host function
		var fine bool
		ptr, fine = v.call(0, "malloc", uint32(len(b)))
		v.depth--
		if !fine || ptr == 0 || !v.memory.Write(ptr, b) {
			return invalidMemory
		}
	}
	if !v.memory.WriteUint32Le(at, ptr) || !v.memory.WriteUint32Le(sizeAt, uint32(len(b))) {
		return invalidMemory
	}
	return ok
}

// close frees the machine and drops its HTTP calls.
func (v *vm) close() {
	v.failed = true
	for _, cancel := range v.calls {
		cancel()
	}
	v.module.Close(v.ctx)
}
