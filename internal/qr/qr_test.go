package qr

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type tb interface {
	Helper()
	Errorf(format string, args ...any)
	FailNow()
}

// decode reads the code in a picture that shows nothing else.
func decode(t tb, img image.Image) string {
	t.Helper()
	bitmap, err := gozxing.NewBinaryBitmap(gozxing.NewGlobalHistgramBinarizer(gozxing.NewLuminanceSourceFromImage(img)))
	require.NoError(t, err)
	return read(t, bitmap, map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_PURE_BARCODE: true})
}

// find reads the code in a picture as an app on a phone does: it looks for the code
// first. The reader does not find every code, whoever has drawn it.
func find(t tb, img image.Image) string {
	t.Helper()
	bitmap, err := gozxing.NewBinaryBitmapFromImage(img)
	require.NoError(t, err)
	return read(t, bitmap, nil)
}

func read(t tb, bitmap *gozxing.BinaryBitmap, hints map[gozxing.DecodeHintType]any) string {
	t.Helper()
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, hints)
	require.NoError(t, err)
	return result.GetText()
}

var (
	black = color.RGBA{A: 0xff}
	white = color.RGBA{0xff, 0xff, 0xff, 0xff}
)

// fromSVG draws an SVG of this package, with so many pixels for a module.
func fromSVG(t tb, text []byte, pixels int) image.Image {
	t.Helper()
	var svg struct {
		ViewBox string `xml:"viewBox,attr"`
		Width   string `xml:"width,attr"`
		Rect    []struct {
			Fill string `xml:"fill,attr"`
		} `xml:"rect"`
		Path []struct {
			Fill string `xml:"fill,attr"`
			D    string `xml:"d,attr"`
		} `xml:"path"`
	}
	require.NoError(t, xml.Unmarshal(text, &svg))
	require.Len(t, svg.Path, 1)
	require.Len(t, svg.Rect, 1)
	var side int
	_, err := fmt.Sscanf(svg.ViewBox, "0 0 %d", &side)
	require.NoError(t, err)
	background, err := ParseColor(svg.Rect[0].Fill)
	require.NoError(t, err)
	foreground, err := ParseColor(svg.Path[0].Fill)
	require.NoError(t, err)
	img := image.NewPaletted(image.Rect(0, 0, side*pixels, side*pixels), color.Palette{background, foreground})
	for _, run := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-(\d+)z`).FindAllStringSubmatch(svg.Path[0].D, -1) {
		n := make([]int, len(run))
		for i, digits := range run[1:] {
			n[i], _ = strconv.Atoi(digits)
		}
		require.Equal(t, n[2], n[3])
		for x := n[0] * pixels; x < (n[0]+n[2])*pixels; x++ {
			for y := n[1] * pixels; y < (n[1]+1)*pixels; y++ {
				img.SetColorIndex(x, y, 1)
			}
		}
	}
	return img
}

// Every picture of every text can be read, whatever its size, level, margin and colors.
func TestPicturesCanBeRead(t *testing.T) {
	t.Parallel()
	channel := rapid.Uint8()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.StringMatching(`https://[a-z]{1,20}\.[a-z]{2,5}/([a-zA-Z0-9_.~-]|%[0-9A-F]{2}){1,60}\?qr`),
			rapid.StringMatching(`HTTPS://[A-Z]{1,9}/[A-Z0-9]{1,9}`), rapid.StringMatching(`[0-9]{1,40}`),
		).Draw(t, "text")
		level := rapid.SampledFrom([]Level{Low, Medium, Quartile, High}).Draw(t, "level")
		style := Style{
			Margin:     rapid.IntRange(0, 10).Draw(t, "margin"),
			Foreground: color.RGBA{channel.Draw(t, "red"), channel.Draw(t, "green"), channel.Draw(t, "blue"), 0xff},
			Background: color.RGBA{255 - channel.Draw(t, "red"), 255 - channel.Draw(t, "green"), 255 - channel.Draw(t, "blue"), 0xff},
		}
		if CheckColors(style.Foreground, style.Background) != nil {
			style.Foreground, style.Background = black, white
		}
		code, err := New(text, level)
		require.NoError(t, err)
		style.Size = code.Least(style.Margin)*rapid.IntRange(1, 4).Draw(t, "pixels") + rapid.IntRange(0, 30).Draw(t, "left over")

		file, err := code.PNG(style)
		require.NoError(t, err)
		img, err := png.Decode(bytes.NewReader(file))
		require.NoError(t, err)
		assert.Equal(t, image.Rect(0, 0, style.Size, style.Size), img.Bounds())
		assert.Equal(t, text, decode(t, img), "PNG")
		assert.Equal(t, text, decode(t, fromSVG(t, code.SVG(style), 2)), "SVG")
	})
}

// A reader that has to look for the code finds it in pictures of all kinds.
func TestCodesAreFound(t *testing.T) {
	t.Parallel()
	for level := range levels {
		code, err := New("https://sign.example/spring?qr", level)
		require.NoError(t, err)
		for _, size := range []int{100, 150, 300} {
			for _, colors := range [][2]color.RGBA{
				{black, white}, {{0x77, 0x77, 0x77, 0xff}, white}, {{0xcc, 0, 0, 0xff}, white}, {{0, 0, 0xff, 0xff}, {0xff, 0xff, 0, 0xff}}, {black, {0x77, 0x77, 0x77, 0xff}},
			} {
				require.NoError(t, CheckColors(colors[0], colors[1]))
				for _, margin := range []int{2, 4} {
					file, err := code.PNG(Style{Size: size, Margin: margin, Foreground: colors[0], Background: colors[1]})
					require.NoError(t, err)
					img, err := png.Decode(bytes.NewReader(file))
					require.NoError(t, err)
					assert.Equal(t, "https://sign.example/spring?qr", find(t, img), "%s %d %v %d", level, size, colors, margin)
				}
			}
		}
	}
}

// The longest short URL there can be fits at every level.
func TestLongestURL(t *testing.T) {
	t.Parallel()
	text := "https://" + strings.Repeat("a.", 126) + "b:65535/r/" + strings.Repeat("%F0", 255) + "?qr"
	for level := range levels {
		code, err := New(text, level)
		require.NoError(t, err, level)
		file, err := code.PNG(Style{Size: 3 * code.Least(4), Margin: 4, Foreground: black, Background: white})
		require.NoError(t, err)
		img, err := png.Decode(bytes.NewReader(file))
		require.NoError(t, err)
		assert.Equal(t, text, decode(t, img))
	}
	_, err := New(strings.Repeat("a", 3000), Low)
	require.Error(t, err)
	_, err = New("a", "X")
	require.Error(t, err)
}

// A part of the code may be covered, as the level says.
func TestLevelsBearDamage(t *testing.T) {
	t.Parallel()
	const text = "https://sign.example/a-rather-long-code-for-a-code-with-many-modules?qr"
	code, err := New(text, High)
	require.NoError(t, err)
	for x := 10; x < 22; x++ {
		for y := 10; y < 22; y++ {
			code.dark[y*code.side+x] = false
		}
	}
	file, err := code.PNG(Style{Size: 400, Margin: 4, Foreground: black, Background: white})
	require.NoError(t, err)
	img, err := png.Decode(bytes.NewReader(file))
	require.NoError(t, err)
	assert.Equal(t, text, decode(t, img))
}

func TestPNGHasOneBitForEachPixel(t *testing.T) {
	t.Parallel()
	code, err := New("https://sign.example/spring?qr", Medium)
	require.NoError(t, err)
	orange := color.RGBA{0xa0, 0x40, 0, 0xff}
	file, err := code.PNG(Style{Size: 300, Margin: 4, Foreground: orange, Background: white})
	require.NoError(t, err)
	header := file[16:] // of the chunk IHDR: width, height, bits, type of color
	assert.Equal(t, uint32(300), binary.BigEndian.Uint32(header))
	assert.Equal(t, []byte{1, 3}, header[8:10], "bits, and a palette")
	img, err := png.Decode(bytes.NewReader(file))
	require.NoError(t, err)
	assert.Equal(t, color.Palette{white, orange}, img.ColorModel())
	assert.Less(t, len(file), 2000)

	_, err = code.PNG(Style{Size: code.Least(4) - 1, Margin: 4})
	require.Error(t, err)
}

func TestText(t *testing.T) {
	t.Parallel()
	const text = "https://sign.example/spring?qr"
	code, err := New(text, Low)
	require.NoError(t, err)
	drawn := code.Text(2)
	lines := strings.Split(strings.TrimSuffix(drawn, "\n"), "\n")
	img := image.NewGray(image.Rect(0, 0, 4*code.Least(2), 8*len(lines)))
	for y, line := range lines {
		signs := []rune(line)
		require.Len(t, signs, code.Least(2))
		for x, sign := range signs {
			for i := range 32 {
				ink := sign == '█' || sign == '▀' && i < 16 || sign == '▄' && i >= 16
				if !ink {
					img.SetGray(4*x+i%4, 8*y+i/4, color.Gray{255})
				}
			}
		}
	}
	assert.Equal(t, text, decode(t, img))
}

func TestParseColor(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]color.RGBA{
		"1a2B3c": {0x1a, 0x2b, 0x3c, 0xff}, "#000": black, "fff": white, "#FFFFFF": white, "f80": {0xff, 0x88, 0, 0xff},
	} {
		got, err := ParseColor(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "#", "red", "12345", "1234567", "ffff", "##fff", "ggg", "é1", "fff ", "ff0000ff", "-1a2b3"} {
		_, err := ParseColor(text)
		assert.Error(t, err, text)
	}
}

func TestCheckColors(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"000 fff": true, "fff 000": false, "000 000": false, "777 fff": true, "aaa fff": false, "ff0 fff": false,
		"00f fff": true, "c00 fff": true, "000 888": true, "000 555": false, "063 ffd": true, "f00 0f0": false,
		"004bea 07ec00": false,
	} {
		fore, back, _ := strings.Cut(text, " ")
		foreground, err := ParseColor(fore)
		require.NoError(t, err)
		background, err := ParseColor(back)
		require.NoError(t, err)
		if err := CheckColors(foreground, background); ok {
			assert.NoError(t, err, text)
		} else {
			assert.Error(t, err, text)
		}
	}
}

func BenchmarkQR(b *testing.B) {
	code, err := New("https://sign.example/spring?qr", Medium)
	require.NoError(b, err)
	style := Style{Size: 2048, Margin: 4, Foreground: black, Background: white}
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			_, _ = New("https://sign.example/spring?qr", Medium)
		}
	})
	b.Run("encode the longest", func(b *testing.B) {
		text := strings.Repeat("a", 1030)
		for b.Loop() {
			_, _ = New(text, High)
		}
	})
	b.Run("SVG", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = code.SVG(style)
		}
	})
	b.Run("PNG of the largest size", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = code.PNG(style)
		}
	})
}
