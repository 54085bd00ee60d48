package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"mime"
	"path"

	"github.com/klauspost/compress/gzip"
)

// AssetsPath is the beginning of the paths of assets; the hash of all of them follows,
// and then the name of one.
const AssetsPath = "/app/assets/"

// Asset is a file that never changes under its path.
type Asset struct {
	Type   string
	Plain  []byte
	Packed []byte // in gzip
}

type assets struct {
	hash   string
	byName map[string]Asset
}

// loadAssets reads and packs the assets. They share one hash, so that scripts find each
// other by relative paths.
func loadAssets() assets {
	a := assets{byName: map[string]Asset{}}
	sum := sha256.New()
	names, err := fs.Glob(files, "assets/*")
	if err != nil {
		panic(err) // the pattern is bad
	}
	for _, name := range names {
		plain, err := files.ReadFile(name)
		if err != nil {
			panic(err) // it is a part of the program
		}
		sum.Write([]byte(name))
		sum.Write(plain)
		a.byName[path.Base(name)] = Asset{Type: typeOf(name), Plain: plain, Packed: Pack(plain, gzip.BestCompression)}
	}
	a.hash = hex.EncodeToString(sum.Sum(nil)[:8])
	return a
}

func typeOf(name string) string {
	if path.Ext(name) == ".js" { // systems disagree about it
		return "text/javascript; charset=utf-8"
	}
	return mime.TypeByExtension(path.Ext(name))
}

// Pack compresses with gzip, at one of its levels.
func Pack(plain []byte, level int) []byte {
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, level)
	if err != nil {
		panic(err) // the level is bad
	}
	_, _ = w.Write(plain) // cannot fail: it is written to memory
	_ = w.Close()
	return packed.Bytes()
}

// path returns the path of an asset.
func (a assets) path(name string) string { return AssetsPath + a.hash + "/" + name }

// Asset returns the asset of a name, if the hash is that of this release. During a
// rollout a browser may ask the other release, and must not keep its answer.
func (w *Web) Asset(hash, name string) (Asset, bool) {
	asset, ok := w.assets.byName[name]
	return asset, ok && hash == w.assets.hash
}
