package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// ErrUploadCancelled ends an upload whose import was cancelled or given up meanwhile.
var ErrUploadCancelled = Conflict("the import was cancelled while it was received")

// ImportOptions say how a file is to be imported.
type ImportOptions struct {
	Kind     csvimport.Kind
	Owner    *int64 // of links if the file names no owner; nil for nobody
	Policy   csvimport.Policy
	DryRun   bool
	Filename *string
}

// CheckOwner returns an error unless the owner of the links of a file is a user. No
// owner is one too.
func (s *Service) CheckOwner(ctx context.Context, owner *int64) error {
	if owner == nil {
		return nil
	}
	missing, err := queries.New(s.Pool).FindMissingUsers(ctx, []int64{*owner})
	if err == nil && len(missing) > 0 {
		err = Invalid(FieldError{"user_id", "is not a user"})
	}
	return err
}

var errNoOwner = &Error{
	Kind:    KindInvalid,
	Message: "the file does not say whose the links are: it needs the column user_id, or the query user_id for all of them",
	Fields:  []FieldError{{"user_id", "is missing"}},
}

// CheckOwned returns an error if neither the file nor the request says whose the links of
// the file are.
func (o ImportOptions) CheckOwned(layout csvimport.Layout) error {
	if o.Kind == csvimport.KindLinks && o.Owner == nil && !layout.Has("user_id") {
		return errNoOwner
	}
	return nil
}

// A Receipt is an import while its file is received, chunk by chunk. Whoever ends it
// early calls Fail. It must not be used concurrently.
type Receipt struct {
	service *Service
	actor   Actor
	once    *Once
	row     queries.Import
	layout  csvimport.Layout
	chunks  int32
	rows    int64
	highest int64 // id in the file
}

// ReceiveImport makes an import whose file begins to arrive, once for the request's key.
// Beside an error it may return a receipt: then the import may exist all the same,
// because the answer of the database was lost, and Fail clears it away.
func (s *Service) ReceiveImport(ctx context.Context, actor Actor, o ImportOptions, layout csvimport.Layout, once *Once) (*Receipt, error) {
	if err := s.MayImport(actor, o.Kind); err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(layout)
	if err != nil {
		return nil, fmt.Errorf("encode layout: %w", err)
	}
	r := &Receipt{service: s, actor: actor, once: once, layout: layout}
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		q := queries.New(tx)
		r.row, err = q.CreateImport(ctx, queries.CreateImportParams{
			Kind: string(o.Kind), Filename: o.Filename, Layout: encoded, OnConflict: string(o.Policy), DryRun: o.DryRun,
			// An editor's file needs no ids: nothing that an editor may write refers to
			// ids of links.
			KeepIds: actor.Role == RoleAdmin, OwnerID: o.Owner, ActorID: actor.TokenID, ActorName: actor.Name,
		})
		if err != nil {
			return err
		}
		return once.Claim(ctx, q, &r.row.ID)
	})
	if err != nil && r.row.ID == 0 {
		return nil, err
	}
	return r, err
}

// ID returns the id of the import.
func (r *Receipt) ID() int64 { return r.row.ID }

// Store stores the next chunk, unless the import was given up or cancelled in the
// meantime: nothing would remove the chunk then. bytes is how many have been received.
func (r *Receipt) Store(ctx context.Context, chunk csvimport.Chunk, bytes int64) error {
	r.chunks++
	r.rows += int64(chunk.Rows)
	r.highest = max(r.highest, r.layout.HighestID(chunk.Data))
	return postgres.InTx(ctx, r.service.Pool, func(tx pgx.Tx) error {
		q := queries.New(tx)
		if err := r.hear(ctx, q, bytes); err != nil {
			return err
		}
		return q.InsertImportChunk(ctx, queries.InsertImportChunkParams{
			ImportID: r.row.ID, Seq: int32(chunk.Seq), FirstLine: chunk.FirstLine, Rows: int32(chunk.Rows), Data: chunk.Data,
		})
	})
}

// Hear stores that the file is still arriving, and checks whether it may go on.
func (r *Receipt) Hear(ctx context.Context, bytes int64) error {
	return r.hear(ctx, queries.New(r.service.Pool), bytes)
}

func (r *Receipt) hear(ctx context.Context, q *queries.Queries, bytes int64) error {
	if err := tokenHolds(ctx, q, r.actor); err != nil {
		return err
	}
	heard, err := q.HearImport(ctx, bytes, r.row.ID)
	if err == nil && heard == 0 {
		err = ErrUploadCancelled
	}
	return err
}

// Queue hands the import over to the workers once the whole file has been stored. The
// token is kept from being revoked until the transaction ends, because nothing may be
// imported for a token once it is revoked. The answer for a repeat of the request is
// stored with it.
func (r *Receipt) Queue(ctx context.Context, bytes int64) (queued Import, err error) {
	err = postgres.InTx(ctx, r.service.Pool, func(tx pgx.Tx) error {
		q := queries.New(tx)
		if err := holdToken(ctx, q, r.actor); err != nil {
			return err
		}
		row, err := q.QueueImport(ctx, queries.QueueImportParams{
			ID: r.row.ID, BytesReceived: bytes, RowsTotal: r.rows, ChunksTotal: r.chunks,
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrUploadCancelled
		}
		if err != nil {
			return err
		}
		if err := r.service.insertImportJob(ctx, tx, row.ID, jobs.ApplyChunk{ImportID: row.ID}); err != nil {
			return err
		}
		queued = viewImport(row)
		answer, err := json.Marshal(queued)
		if err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		return r.once.Keep(ctx, q, statusAccepted, queued.Path(), answer)
	})
	return queued, err
}

// ReserveIDs moves the sequence beyond the ids in the file, so that none of them is
// drawn while the import runs. An id that was drawn before the upload ended is taken:
// the row of the file with that id is rejected.
func (r *Receipt) ReserveIDs(ctx context.Context) error {
	if r.highest == 0 || !r.row.KeepIds || r.row.DryRun {
		return nil
	}
	switch q := queries.New(r.service.Pool); csvimport.Kind(r.row.Kind) {
	case csvimport.KindUsers:
		return q.MoveUsersSequence(ctx, r.highest)
	case csvimport.KindLinks:
		return q.MoveURLsSequence(ctx, r.highest)
	default: // events have ids of their own
		return nil
	}
}

// Fail ends the import of a failed upload and drops its chunks. It does nothing if the
// import is queued after all, because only the answer to the commit was lost, or if it
// is being cancelled.
func (r *Receipt) Fail(ctx context.Context, reason string) error {
	return postgres.InTx(ctx, r.service.Pool, func(tx pgx.Tx) error {
		q := queries.New(tx)
		failed, err := q.FailImport(ctx, &reason, r.row.ID)
		if err != nil || failed == 0 {
			return err
		}
		return q.DropImportChunks(ctx, r.row.ID)
	})
}
