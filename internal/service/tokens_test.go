package service

import (
	"strings"
	"testing"
)

func TestSecrets(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		secret := newSecret()
		if !IsSecret(secret) || len(secret) != len(tokenPrefix)+tokenDigits || seen[secret] {
			t.Fatalf("drew the secret %q", secret)
		}
		seen[secret] = true
	}
	for _, wrong := range []string{"", "sp_", "sp_" + strings.Repeat("a", 42), "sp_" + strings.Repeat("a", 42) + "-", "xx_" + strings.Repeat("a", 43)} {
		if IsSecret(wrong) {
			t.Errorf("%q was taken for a token", wrong)
		}
	}
}
