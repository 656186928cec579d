package plugin

// ImportModule is the module that the functions of Imports are imported from.
const ImportModule = "env"

// An Import is a function of Proxy-Wasm 0.2.1 that the module may import (SPEC.md §8.3). It
// returns an i32, which is a status.
type Import struct {
	Name   string
	Params string // one letter each: "i" is an i32, "I" an i64
}

// Imports are all of them, in the order of SPEC.md §8.3. A host that is no proxy gives each a
// body that returns StatusUnimplemented.
func Imports() []Import {
	return []Import{
		{"proxy_log", "iii"},
		{"proxy_set_tick_period_milliseconds", "i"},
		{"proxy_set_effective_context", "i"},
		{"proxy_get_current_time_nanoseconds", "i"},
		{"proxy_get_buffer_bytes", "iiiii"},
		{"proxy_set_buffer_bytes", "iiiii"},
		{"proxy_continue_stream", "i"},
		{"proxy_close_stream", "i"},
		{"proxy_get_property", "iiii"},
		{"proxy_http_call", "iiiiiiiiii"},
		{"proxy_get_header_map_value", "iiiii"},
		{"proxy_define_metric", "iiii"},
		{"proxy_increment_metric", "iI"},
		{"proxy_get_shared_data", "iiiii"},
		{"proxy_set_shared_data", "iiiii"},
		{"proxy_call_foreign_function", "iiiiii"},
	}
}
