package qr

import (
	"encoding/hex"
	"errors"
	"fmt"
	"image/color"
	"math"
	"strings"
)

var errColor = errors.New("must be a color such as 1a2b3c")

// ParseColor reads a color: three or six hexadecimal digits, with # before them or
// without. Its error is worded to follow the name of a field.
func ParseColor(text string) (color.RGBA, error) {
	digits := strings.TrimPrefix(text, "#")
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	rgb, err := hex.DecodeString(digits)
	if err != nil || len(rgb) != 3 {
		return color.RGBA{}, errColor
	}
	return color.RGBA{rgb[0], rgb[1], rgb[2], 0xff}, nil
}

func hexOf(c color.RGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

const (
	// minContrast is the least contrast of two colors in a code, which is what WCAG 2 asks
	// of graphics. Cameras see less than a decoder of files: they need some to spare.
	minContrast = 3
	// minStep is the least difference of the two in the gray of a reader, from 0 to 255.
	// For readers blue is as bright as red, so that blue on green is one gray for them
	// although eyes see a contrast.
	minStep = 64
)

// CheckColors returns an error unless readers can tell the two colors apart. It follows
// the name of the field foreground. Many readers find no code that is light on dark.
func CheckColors(foreground, background color.RGBA) error {
	dark, light := luminance(foreground), luminance(background)
	if (light+0.05)/(dark+0.05) < minContrast || gray(background)-gray(foreground) < minStep {
		return errors.New("must be much darker than the background, or the code cannot be read")
	}
	return nil
}

// gray returns the brightness of a color as many readers work it out, from 0 to 255.
func gray(c color.RGBA) int { return (int(c.R) + 2*int(c.G) + int(c.B)) / 4 }

// luminance returns the relative luminance of a color, from 0 to 1 (WCAG 2).
func luminance(c color.RGBA) float64 {
	linear := func(v uint8) float64 {
		if s := float64(v) / 255; s > 0.04045 {
			return math.Pow((s+0.055)/1.055, 2.4)
		}
		return float64(v) / 255 / 12.92
	}
	return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
}
