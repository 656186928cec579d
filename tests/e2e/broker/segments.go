package broker

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// CountOnDisk counts a text in the raw bytes of all that the brokers store, logs of metadata
// and of every topic included.
func (c *Cluster) CountOnDisk(text []byte) (hits int, size int64, err error) {
	for _, n := range c.Nodes {
		err := filepath.WalkDir(n.Data, func(path string, e os.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return nil // a segment may vanish while we walk
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			size += int64(len(b))
			hits += bytes.Count(b, text)
			return nil
		})
		if err != nil {
			return 0, 0, err
		}
	}
	return hits, size, nil
}

// Dump decodes a topic's segments with Kafka's DumpLogSegments, records and their headers,
// decompressed, included.
func (c *Cluster) Dump(ctx context.Context, topic string) (string, error) {
	files, err := c.Segments(topic)
	if err != nil {
		return "", err
	}
	return c.Tool(ctx, "kafka.tools.DumpLogSegments", "--print-data-log", "--deep-iteration", "--files", strings.Join(files, ","))
}
