package report

import (
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// Measures of a plot, in pixels.
const (
	barHeight  = 16
	labelWidth = 430
	plotWidth  = 420
	rightSpace = 170
	rowSpace   = 12
	topSpace   = 34
)

// colours are told apart by eyes that lack one of the usual three, in order of sides.
var colours = []string{"#0072b2", "#e69f00", "#999999", "#009e73", "#cc79a7"}

// Plots writes one SVG of bars for each section and unit to dir: every side's median, and a
// whisker from quartile to quartile. It returns the files' names.
func Plots(dir string, rows []Row) (files []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	type key struct{ section, unit string }
	groups, order := map[key][]Row{}, []key{}
	for _, r := range rows {
		k := key{r.Section, r.Unit}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], r)
	}
	for _, k := range order {
		name := strings.NewReplacer("/", "-per-", " ", "-", ".", "-").Replace(k.section+"-"+k.unit) + ".svg"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(plot(k.section+", "+k.unit, groups[k])), 0o644); err != nil {
			return nil, err
		}
		files = append(files, name)
	}
	return files, nil
}

func plot(title string, rows []Row) string {
	top, bars := 0.0, 0
	for _, r := range rows {
		for _, s := range r.Sides {
			top = max(top, Of(s.Values).High)
			bars++
		}
	}
	if top <= 0 || math.IsInf(top, 0) || math.IsNaN(top) {
		top = 1
	}
	height := topSpace + bars*barHeight + len(rows)*rowSpace
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n",
		labelWidth+plotWidth+rightSpace, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="8" y="18" font-size="13">%s</text>`+"\n", html.EscapeString(title))
	y := topSpace
	for _, r := range rows {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth-8, y+12, html.EscapeString(r.Name))
		for i, s := range r.Sides {
			v := Of(s.Values)
			at := func(v float64) float64 { return labelWidth + v/top*plotWidth }
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y, at(v.Median)-labelWidth, barHeight-3, colours[i%len(colours)])
			fmt.Fprintf(&b, `<path d="M%.1f %d H%.1f" stroke="black"/>`, at(v.Low), y+(barHeight-3)/2, at(v.High))
			fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", at(v.High)+5, y+11, html.EscapeString(s.Name+" "+number(v.Median)))
			y += barHeight
		}
		y += rowSpace
	}
	b.WriteString("</svg>\n")
	return b.String()
}
