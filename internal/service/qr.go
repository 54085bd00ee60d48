package service

import (
	"context"
	"fmt"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/qr"
)

// Bounds of the pictures of QR codes.
const (
	minQRSize   = 16
	maxQRSize   = 2048
	maxQRMargin = 32
)

// QRFields say how the QR code of a link is drawn.
type QRFields struct {
	Size       int // of the picture's side, in pixels
	Margin     int // around the code, in modules
	Level      string
	Foreground string
	Background string
}

// Check returns the faults of the fields.
func (f QRFields) Check() Faults {
	_, faults := f.style()
	return faults
}

func (f QRFields) style() (qr.Style, Faults) {
	var faults Faults
	if f.Size < minQRSize || f.Size > maxQRSize {
		faults.Add("size", fmt.Sprintf("must be from %d to %d", minQRSize, maxQRSize))
	}
	if f.Margin < 0 || f.Margin > maxQRMargin {
		faults.Add("margin", fmt.Sprintf("must be from 0 to %d", maxQRMargin))
	}
	if !qr.IsLevel(f.Level) {
		faults.Add("level", "must be L, M, Q or H")
	}
	foreground, err := qr.ParseColor(f.Foreground)
	if err != nil {
		faults.Add("foreground", err.Error())
	}
	background, otherErr := qr.ParseColor(f.Background)
	if otherErr != nil {
		faults.Add("background", otherErr.Error())
	}
	if err == nil && otherErr == nil {
		if err := qr.CheckColors(foreground, background); err != nil {
			faults.Add("foreground", err.Error())
		}
	}
	return qr.Style{Size: f.Size, Margin: f.Margin, Foreground: foreground, Background: background}, faults
}

// DrawQR returns the QR code of a link as a file in SVG or PNG. The address in it is the
// short URL with a mark by which clicks are told from scans.
func (s *Service) DrawQR(ctx context.Context, actor Actor, id int64, asPNG bool, in QRFields) ([]byte, error) {
	link, err := s.GetLink(ctx, actor, id)
	if err != nil {
		return nil, err
	}
	style, faults := in.style()
	if err := faults.Err(); err != nil {
		return nil, err
	}
	code, err := qr.New(links.ScanURL(link.ShortURL), qr.Level(in.Level))
	if err != nil {
		return nil, err
	}
	if !asPNG {
		return code.SVG(style), nil
	}
	if least := code.Least(in.Margin); in.Size < least {
		return nil, Invalid(FieldError{"size", fmt.Sprintf("must be at least %d for this link, level and margin", least)})
	}
	return code.PNG(style)
}
