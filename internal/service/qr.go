package service

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
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
	Mark       bool // whether clicks by the code are told as scans
}

// UsualQR is how codes are drawn unless somebody asks for another way.
var UsualQR = QRFields{Size: 512, Margin: 4, Level: "M", Foreground: "000000", Background: "ffffff", Mark: true}

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

// QR is the QR code of a link, as it is to be drawn.
type QR struct {
	// Tag is an ETag of the picture.
	Tag string
	// Address is the text in the code.
	Address string

	code  *qr.Code
	style qr.Style
	asPNG bool
}

// qrForm is the way in which codes are drawn. It changes when other pictures come out.
const qrForm = 1

// GetQR returns the QR code of a link in SVG or PNG. The address in it is the short URL,
// usually with a mark by which clicks are told from scans.
func (s *Service) GetQR(ctx context.Context, actor Actor, id int64, asPNG bool, in QRFields) (QR, error) {
	link, err := s.GetLink(ctx, actor, id)
	if err != nil {
		return QR{}, err
	}
	style, faults := in.style()
	if err := faults.Err(); err != nil {
		return QR{}, err
	}
	address := link.ShortURL
	if in.Mark {
		address = links.ScanURL(address)
	}
	code, err := qr.New(address, qr.Level(in.Level))
	if err != nil {
		return QR{}, err
	}
	if least := code.Least(in.Margin); asPNG && in.Size < least {
		return QR{}, Invalid(FieldError{"size", fmt.Sprintf("must be at least %d for this link, level and margin", least)})
	}
	sum := sha256.Sum256(fmt.Append(nil, qrForm, asPNG, in.Level, style, address))
	return QR{`"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, address, code, style, asPNG}, nil
}

// Draw returns the picture as a file.
func (q QR) Draw() ([]byte, error) {
	if q.asPNG {
		return q.code.PNG(q.style)
	}
	return q.code.SVG(q.style), nil
}
