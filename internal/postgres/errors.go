package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"
)

// These are the codes that are referred to by name, of
// https://www.postgresql.org/docs/current/errcodes-appendix.html.
const (
	codeReadOnly       = "25006" // read_only_sql_transaction
	codeDuplicate      = "23505" // unique_violation
	codeCheckViolation = "23514" // check_violation, and "no partition found for row"
	codeUndefinedTable = "42P01"
	codeNoRight        = "42501" // insufficient_privilege
	codeNoSchema       = "3F000" // invalid_schema_name, and "no schema has been selected to create in"
	codeNoDatabase     = "3D000" // invalid_catalog_name
	codeLockTimeout    = "55P03" // lock_not_available
	codeInvalidObject  = "42P17" // "partition would overlap partition"
	codeCanceled       = "57014" // statement_timeout, or an operator's pg_cancel_backend
)

// unavailableCodes are the codes of errors that are the fault of the server and not of
// the statement. A text of two characters stands for a whole class of codes.
var unavailableCodes = []string{
	"08", // connection exceptions
	"28", // the server does not let us in
	codeNoDatabase,
	codeReadOnly, // this is a primary that was demoted
	"25P03",      // idle_in_transaction_session_timeout: the session is gone
	"25P04",      // transaction_timeout
	"40003",      // statement_completion_unknown
	"53",         // out of connections, memory or disk
	codeLockTimeout,
	codeCanceled,
	"57P", // shutting down, crashed, starting up, session ended
	"58",  // I/O error and the like
}

// Code returns the SQLSTATE of an error that the server reported, and ""
// for any other error.
func Code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// Duplicate reports whether err says that a row with the same key is there already.
func Duplicate(err error) bool { return Code(err) == codeDuplicate }

// Constraint returns the name of the constraint (or unique index) that err says
// was violated, and "" for any other error.
func Constraint(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && strings.HasPrefix(pg.Code, "23") {
		return pg.ConstraintName
	}
	return ""
}

// NoPartition reports whether err means that events has no partition for the time of a
// row. Partitions.Ensure makes one, if Partitions.Forget is called before.
func NoPartition(err error) bool {
	return Code(err) == codeCheckViolation && Constraint(err) == ""
}

// DataFault reports whether the data of the statement is the cause of err, so that
// repeating it cannot help: a value out of range or not text, a violated constraint, a
// value too large for an index. A missing partition is not a fault of the data.
func DataFault(err error) bool {
	code := Code(err)
	return strings.HasPrefix(code, "22") || code == "54000" ||
		strings.HasPrefix(code, "23") && !NoPartition(err)
}

// Retryable reports whether err only means that two transactions got in each other's
// way, so that the same transaction may be run again at once.
func Retryable(err error) bool {
	code := Code(err)
	return code == "40001" || code == "40P01"
}

// LockTimeout reports whether err means that a lock could not be had within the lock
// timeout of the transaction.
func LockTimeout(err error) bool { return Code(err) == codeLockTimeout }

// StatementTimeout reports whether err means that the server ended a statement, most
// likely because it ran longer than its timeout.
func StatementTimeout(err error) bool { return Code(err) == codeCanceled }

// Unavailable reports whether err means that Postgres is down, cannot be reached, is
// overloaded, failing over, or did not answer within our deadline, so that the same
// request may well work later. It is false for mistakes of the caller, for faults of
// the data and for a request that its client canceled.
//
// err must come from the driver, because a timeout or a broken pipe of any other
// connection looks the same.
func Unavailable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	if code := Code(err); code != "" {
		return slices.ContainsFunc(unavailableCodes, func(start string) bool { return strings.HasPrefix(code, start) })
	}
	return connectionFault(err)
}

// connectionFault reports whether err, which was not reported by a server, is one of
// the many ways in which a connection cannot be made or breaks.
func connectionFault(err error) bool {
	for _, known := range []error{
		context.DeadlineExceeded, pgconn.ErrConnClosed, puddle.ErrClosedPool,
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.Timeout(err)
}

// Refused reports whether the server is up and refuses us for a reason that waiting
// does not change: a wrong password, an unknown user or database.
func Refused(err error) bool {
	code := Code(err)
	return code == codeNoDatabase || strings.HasPrefix(code, "28")
}
