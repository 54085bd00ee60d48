package linkcache

import "context"

type journal struct{}

func (*journal) close() {}

func (c *Cache) record([]change, view)        {}
func (c *Cache) restore(string) error         { return nil }
func (c *Cache) keepSnapshot(context.Context) {}
func (c *Cache) saveSnapshot()                {}
