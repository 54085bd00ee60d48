package api

import (
	"net"
	"net/netip"
	"testing"

	"github.com/valyala/fasthttp"
)

func TestClientAddress(t *testing.T) {
	t.Parallel()
	a := &API{Options: Options{TrustedProxies: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"),
	}}}
	tests := []struct {
		name, remote string
		forwarded    []string
		want         string
	}{
		{"direct", "192.0.2.1", nil, "192.0.2.1"},
		{"direct with a made-up header", "192.0.2.1", []string{"198.51.100.1"}, "192.0.2.1"},
		{"mapped", "::ffff:192.0.2.1", nil, "192.0.2.1"},
		{"IPv6", "2001:db8::1", nil, "2001:db8::1"},
		{"proxy without the header", "10.0.0.1", nil, "10.0.0.1"},
		{"one proxy", "10.0.0.1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"mapped proxy", "::ffff:10.0.0.1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"client made up the left", "10.0.0.1", []string{"203.0.113.9, 198.51.100.1"}, "198.51.100.1"},
		{"two proxies", "10.0.0.1", []string{"203.0.113.9, 198.51.100.1 ,10.9.9.9"}, "198.51.100.1"},
		{"several lines", "10.0.0.1", []string{"203.0.113.9", "198.51.100.1", "10.9.9.9,fd00::2"}, "198.51.100.1"},
		{"proxies only", "10.0.0.1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"with a port", "10.0.0.1", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"IPv6 with a port", "10.0.0.1", []string{"[2001:db8::7]:443"}, "2001:db8::7"},
		{"IPv6 in brackets", "10.0.0.1", []string{"[2001:db8::7]"}, "2001:db8::7"},
		{"IPv6 with a zone", "10.0.0.1", []string{"fe80::1%eth0"}, "fe80::1"},
		{"mapped in the header", "10.0.0.1", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"mapped proxy in the header", "10.0.0.1", []string{"198.51.100.1, ::ffff:10.0.0.2"}, "198.51.100.1"},
		{"garbage", "10.0.0.1", []string{"unknown"}, "10.0.0.1"},
		{"garbage behind a proxy", "10.0.0.1", []string{"198.51.100.1, _hidden, 10.0.0.2"}, "10.0.0.2"},
		{"empty entry", "10.0.0.1", []string{"198.51.100.1, "}, "10.0.0.1"},
		{"empty header", "10.0.0.1", []string{""}, "10.0.0.1"},
		{"brackets around IPv4", "10.0.0.1", []string{"[198.51.100.1]"}, "10.0.0.1"},
	}
	for _, test := range tests {
		var request fasthttp.Request
		for _, line := range test.forwarded {
			request.Header.Add("X-Forwarded-For", line)
		}
		var ctx fasthttp.RequestCtx
		ctx.Init(&request, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(test.remote), 1)), nil)
		if got := a.addressOf(&ctx); got.String() != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestClientAddressIsUnknown(t *testing.T) {
	t.Parallel()
	var ctx fasthttp.RequestCtx
	ctx.Init(&fasthttp.Request{}, &net.UnixAddr{Name: "@", Net: "unix"}, nil)
	if got := (&API{}).addressOf(&ctx); got.IsValid() {
		t.Errorf("got %s", got)
	}
}

func FuzzClientAddress(f *testing.F) {
	f.Add("203.0.113.9, [::1]:1, ::ffff:10.0.0.2")
	f.Add(",,fe80::1%")
	a := &API{Options: Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	proxy := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}
	f.Fuzz(func(t *testing.T, header string) {
		var request fasthttp.Request
		request.Header.Set("X-Forwarded-For", header)
		var ctx fasthttp.RequestCtx
		ctx.Init(&request, proxy, nil)
		if got := a.addressOf(&ctx); !got.IsValid() || got.Is4In6() || got.Zone() != "" {
			t.Errorf("%q: got %s", header, got)
		}
	})
}
