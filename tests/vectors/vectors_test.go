package vectors

import (
	"testing"
	"testing/fstest"
)

func TestCorpusLoads(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	statuses := map[string]bool{}
	ops := map[Op]bool{}
	for _, v := range all {
		statuses[v.Want.Means] = true
		ops[v.Op] = true
	}
	if len(ops) != 2 || len(statuses) < 10 {
		t.Errorf("%d vectors know %d operations and %d outcomes", len(all), len(ops), len(statuses))
	}
}

func TestABadCorpusIsRefused(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"empty":          {},
		"unknown field":  {"data/a.json": {Data: []byte(`{"comment":"c","op":"open","patch":1,"want":{"status":0,"means":"ok"}}`)}},
		"unknown op":     {"data/a.json": {Data: []byte(`{"comment":"c","op":"shut","want":{"status":0,"means":"ok"}}`)}},
		"another status": {"data/a.json": {Data: []byte(`{"comment":"c","op":"open","want":{"status":1,"means":"ok"}}`)}},
		"short root":     {"data/a.json": {Data: []byte(`{"comment":"c","op":"open","roots":[{"kid":"00"}],"want":{"status":0,"means":"ok"}}`)}},
		"not hex":        {"data/a.json": {Data: []byte(`{"comment":"c","op":"open","batch":"xy","want":{"status":0,"means":"ok"}}`)}},
	} {
		if v, err := load(files); err == nil {
			t.Errorf("%s: loaded %+v", name, v)
		}
	}
}

func TestABadCorpusOfControlRecordsIsRefused(t *testing.T) {
	named := func(v *Control, _ string) error { return v.check() }
	for name, files := range map[string]fstest.MapFS{
		"empty":         {},
		"unknown field": {"control/a.json": {Data: []byte(`{"comment":"c","root":"","chain":[],"kind":1}`)}},
		"unknown kind":  {"control/a.json": {Data: []byte(`{"comment":"c","want":{"kind":"odd"}}`)}},
		"no reader":     {"control/a.json": {Data: []byte(`{"comment":"c","want":{"kind":"taken"}}`)}},
	} {
		if v, err := loadFolder(files, "control", named); err == nil {
			t.Errorf("%s: loaded %+v", name, v)
		}
	}
}
