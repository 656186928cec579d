package broker

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
)

// Segments are the paths of a topic's log segments on every node.
func (c *Cluster) Segments(topic string) ([]string, error) {
	var all []string
	for _, n := range c.Nodes {
		found, err := filepath.Glob(filepath.Join(n.Data, topic+"-*", "*.log"))
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			// The glob also finds topics whose names begin with this one's.
			dir := filepath.Base(filepath.Dir(path))
			if dir[:strings.LastIndexByte(dir, '-')] == topic {
				all = append(all, path)
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("topic %s: no segments under %s", topic, c.Dir)
	}
	return all, nil
}

// ReadDisk reads every file that the brokers store, logs of metadata and of every topic
// included, one by one into w.
func (c *Cluster) ReadDisk(w io.Writer) error {
	for _, n := range c.Nodes {
		err := filepath.WalkDir(n.Data, func(path string, e os.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() || strings.HasSuffix(path, "index") {
				return nil // a segment may vanish while we walk; indexes are 10 MB of zeros each
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			_, err = w.Write(b)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Dump decodes topics' segments with Kafka's DumpLogSegments, records and the names of their
// headers, decompressed, included. What it prints goes to w: a little more than the topics'
// size.
func (c *Cluster) Dump(ctx context.Context, w io.Writer, topics ...string) error {
	var files []string
	for _, topic := range topics {
		found, err := c.Segments(topic)
		if err != nil {
			return err
		}
		files = append(files, found...)
	}
	_, err := process.Run(ctx, process.Spec{
		Name: "DumpLogSegments", Dir: c.Dir, Stdout: w,
		Args: c.java("-Xmx512m", "org.apache.kafka.tools.DumpLogSegments", "--print-data-log", "--deep-iteration", "--files", strings.Join(files, ",")),
	})
	return err
}
