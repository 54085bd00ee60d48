package zone

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLoad(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "Asia/Kathmandu"} {
		zone, err := Load(name)
		require.NoError(t, err, name)
		assert.Equal(t, name, zone.String())
	}
	zone, err := Load("")
	require.NoError(t, err)
	assert.Equal(t, "UTC", zone.String())
	for _, name := range []string{"Local", "localtime", "europe/berlin", "Europe/Nowhere", "../etc/passwd", "posixrules", "+02:00", "Europe", "\x00"} {
		_, err := Load(name)
		assert.ErrorIs(t, err, ErrUnknown, name)
	}
}
