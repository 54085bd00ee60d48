package service

import (
	"context"
	"errors"
	"reflect"
	"testing"
)

// least is the least role for each function that takes an actor. A function that is
// missing here fails the test.
var least = map[string]Role{
	"ListUsers": RoleReader, "SearchUsers": RoleReader, "GetUser": RoleReader, "FindUser": RoleReader, "ExportUsers": RoleReader,
	"CreateUser": RoleAdmin, "UpdateUser": RoleAdmin, "DeleteUser": RoleAdmin,
	"ListLinks": RoleReader, "ListSortedLinks": RoleReader, "FindLinks": RoleReader, "GetLink": RoleReader, "GetLinks": RoleReader, "ExportLinks": RoleReader, "ExportPicked": RoleReader, "GetQR": RoleReader,
	"CreateLink": RoleEditor, "UpdateLink": RoleEditor, "DeleteLink": RoleEditor,
	"CreateLinks": RoleEditor, "SuggestCode": RoleEditor, "ChangeLinks": RoleEditor, "DeleteLinks": RoleEditor,
	"ListDomains": RoleAdmin, "GetDomain": RoleAdmin, "CreateDomain": RoleAdmin, "UpdateDomain": RoleAdmin, "DeleteDomain": RoleAdmin,
	"ListTokens": RoleAdmin, "CreateToken": RoleAdmin, "RevokeToken": RoleAdmin,
	"ListFailedBatches": RoleAdmin, "RetryBatch": RoleAdmin, "DropBatch": RoleAdmin, "GetSystem": RoleAdmin,
	"ListMarks": RoleAdmin, "CreateMark": RoleAdmin, "DeleteMark": RoleAdmin,
	"ListEvents": RoleReader, "ExportEvents": RoleReader, "Live": RoleReader,
	"ListSessions": RoleReader, "EndSessions": RoleReader,
	"InSnapshot": RoleReader, "GetStatistics": RoleReader, "GetBreakdown": RoleReader, "ExportSeries": RoleReader, "ExportBreakdown": RoleReader,
	"ListImports": RoleReader, "GetImport": RoleReader, "ListImportErrors": RoleReader, "ListImportNotices": RoleReader,
	"ListKept": RoleReader, "ExportImportErrors": RoleReader, "ExportImportResult": RoleReader,
	"CancelImport": RoleEditor, "RetryImport": RoleEditor, "UndoImport": RoleEditor,
	"PreviewUndo": RoleReader, "PreviewImport": RoleAdmin, "ReceiveImport": RoleAdmin, "MayImport": RoleAdmin, // of a kind that is not links
	"ListTags": RoleReader, "GetTag": RoleReader, "TagColors": RoleReader, "ChangeTag": RoleEditor, "DeleteTag": RoleEditor,
	"TokenHolds": 0,
}

// Every function that takes an actor refuses those whose role is too low, before it
// touches the database: there is none here.
func TestRolesOfEveryFunction(t *testing.T) {
	t.Parallel()
	s := reflect.ValueOf(&Service{})
	found := 0
	for i := range s.NumMethod() {
		name, method := s.Type().Method(i).Name, s.Method(i)
		args := make([]reflect.Value, method.Type().NumIn())
		takesActor := false
		for n := range args {
			args[n] = reflect.Zero(method.Type().In(n))
			takesActor = takesActor || method.Type().In(n) == reflect.TypeFor[Actor]()
		}
		if !takesActor {
			continue
		}
		found++
		role, known := least[name]
		if !known {
			t.Errorf("%s: its role is not in the table", name)
		}
		for lower := Role(0); lower < role; lower++ {
			for n := range args {
				switch method.Type().In(n) {
				case reflect.TypeFor[Actor]():
					args[n] = reflect.ValueOf(Actor{Role: lower})
				case reflect.TypeFor[context.Context]():
					args[n] = reflect.ValueOf(t.Context())
				}
			}
			results := method.Call(args)
			err, _ := results[len(results)-1].Interface().(error)
			var refused *Error
			if !errors.As(err, &refused) || refused.Kind != KindForbidden {
				t.Errorf("%s as %s: %v", name, lower, err)
			}
		}
	}
	if found != len(least) {
		t.Errorf("%d functions take an actor, the table has %d", found, len(least))
	}
}
