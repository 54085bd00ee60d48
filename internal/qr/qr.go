// Package qr draws QR codes: as SVG, as PNG and for terminals.
package qr

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// Level is how much of a code may be damaged or covered. More of it makes more modules.
type Level string

// The levels, by the part of a code that may be missing.
const (
	Low      Level = "L" // 7 %
	Medium   Level = "M" // 15 %
	Quartile Level = "Q" // 25 %
	High     Level = "H" // 30 %
)

var levels = map[Level]qr.ErrorCorrectionLevel{Low: qr.L, Medium: qr.M, Quartile: qr.Q, High: qr.H}

// IsLevel reports whether text is a level.
func IsLevel(text string) bool {
	_, ok := levels[Level(text)]
	return ok
}

// Code is a QR code. Its modules are the small squares. It may be used concurrently.
type Code struct {
	side int
	dark []bool // row by row
}

// New returns the smallest code that holds text at a level. It returns an error if the
// text is too long, which no short URL is, or the level is none.
func New(text string, level Level) (*Code, error) {
	correction, ok := levels[level]
	if !ok {
		return nil, fmt.Errorf("%q is no level of a QR code", level)
	}
	drawn, err := qr.Encode(text, correction, qr.Auto)
	if err != nil {
		return nil, fmt.Errorf("encode a QR code: %w", err)
	}
	side := drawn.Bounds().Dx()
	c := &Code{side: side, dark: make([]bool, 0, side*side)}
	for y := range side {
		for x := range side {
			c.dark = append(c.dark, drawn.At(x, y) == color.Black)
		}
	}
	return c, nil
}

// at reports whether a module is dark. All outside of the code are light.
func (c *Code) at(x, y int) bool {
	return x >= 0 && y >= 0 && x < c.side && y < c.side && c.dark[y*c.side+x]
}

// Style is how a code is drawn.
type Style struct {
	Size                   int // of the whole picture with its margin, in pixels
	Margin                 int // around the code, in modules
	Foreground, Background color.RGBA
}

// SVG returns the code as a picture that is sharp at any size. It has one path.
func (c *Code) SVG(s Style) []byte {
	var b bytes.Buffer
	side := c.side + 2*s.Margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" shape-rendering="crispEdges">`,
		s.Size, s.Size, side, side)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="%s"/><path fill="%s" d="`, side, side, hexOf(s.Background), hexOf(s.Foreground))
	for y := range c.side {
		for x := 0; x < c.side; x++ {
			from := x
			for c.at(x, y) {
				x++
			}
			if x > from {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", from+s.Margin, y+s.Margin, x-from, x-from)
			}
		}
	}
	b.WriteString(`"/></svg>` + "\n")
	return b.Bytes()
}

// Least returns the least Size of a PNG with a margin: one pixel a module.
func (c *Code) Least(margin int) int { return c.side + 2*margin }

// PNG returns the code as a picture of two colors. Its modules are as many whole pixels
// as fit into s.Size, which must be at least [Code.Least]; what is left widens the
// margin.
func (c *Code) PNG(s Style) ([]byte, error) {
	pixels := s.Size / c.Least(s.Margin)
	if pixels < 1 {
		return nil, fmt.Errorf("a code of %d modules does not fit into %d pixels", c.Least(s.Margin), s.Size)
	}
	p := picture{code: c, style: s, module: make([]int, s.Size)}
	from := (s.Size - pixels*c.side) / 2
	for i := range p.module {
		p.module[i] = -1
		if i >= from {
			p.module[i] = (i - from) / pixels
		}
	}
	var b bytes.Buffer
	err := png.Encode(&b, p)
	return b.Bytes(), err
}

// picture is a code as the image of a PNG. It works out each pixel when it is asked for,
// so that large pictures need no memory.
type picture struct {
	code   *Code
	style  Style
	module []int // in which a pixel of a row or column is
}

// ColorModel implements image.Image: two colors, the background's first.
func (p picture) ColorModel() color.Model {
	return color.Palette{p.style.Background, p.style.Foreground}
}

// Bounds implements image.Image.
func (p picture) Bounds() image.Rectangle { return image.Rect(0, 0, p.style.Size, p.style.Size) }

// At implements image.Image.
func (p picture) At(x, y int) color.Color {
	if p.ColorIndexAt(x, y) == 1 {
		return p.style.Foreground
	}
	return p.style.Background
}

// ColorIndexAt implements image.PalettedImage.
func (p picture) ColorIndexAt(x, y int) uint8 {
	if p.code.at(p.module[x], p.module[y]) {
		return 1
	}
	return 0
}

// Text returns the code as lines of text, in which a character is two modules, one above
// the other. Dark modules are ink: it can be read where text is dark on light.
func (c *Code) Text(margin int) string {
	var b strings.Builder
	for y := -margin; y < c.side+margin; y += 2 {
		for x := -margin; x < c.side+margin; x++ {
			switch upper, lower := c.at(x, y), c.at(x, y+1); {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
