-- Rows with every kind of value that a file could damage, for the test of a round trip.
INSERT INTO users (id, username, email, created_at) VALUES
	(1, 'ann', 'ann@example.com', '2019-05-06 07:08:09.123456+00'), (2, '=SUM(A1)', '+bob@example.com', now()),
	(3, 'NULL', 'null@example.com', now()), (4, E'\\N', 'n@example.com', now()), (5, '6''5" tall', 'tall@example.com', now()), (6, E'\\"', 'b@example.com', now()),
	(7, '''=cite', 'o''neil@example.com', '1999-12-31 23:59:59.999999+00'), (4503599627370496, '@日本語 🎉', 'eve@example.com', now());
INSERT INTO urls (id, user_id, short_code, original_url, title, tags, is_active, expires_at, redirect_status,
		forward_query, imported_clicks, created_at, updated_at) VALUES
	(1, 1, 'plain', 'https://example.com/', NULL, '{}', true, NULL, 302, false, 0, '2020-01-01', '2020-01-02'),
	(2, 2, '-dash', 'https://example.com/?q="1,2"&x=%22', '=HYPERLINK("http://evil.example";"x")', '{=a,b c}', true, NULL, 302, true, 12, now(), now()),
	(3, 7, '_under', 'https://example.com/%E6%97%A5', E'''''+two, "quotes"; and | pipes', '{[a],"\"q\""}', false, '2001-02-03 04:05:06.789+00', 307, false, 4503599627370496, now(), now()),
	(4, 4503599627370496, 'last', 'https://example.com/#f', 'née 🎉 – ok', '{@x}', true, '2999-01-01', 308, false, 0, now(), now()),
	(5, 1, 'brackets', 'https://example.com/', '[x]', '{[a]}', true, NULL, 302, false, 0, now(), now()),
	(6, 1, 'wide', 'https://example.com/', '＝1＋1', '{＠x}', true, NULL, 302, false, 0, now(), now()),
	(8, 1, 'null', 'https://example.com/', 'NULL', E'{"\\\\N"}', true, NULL, 302, false, 0, now(), now()),
	(9, 1, 'backslash-n', 'https://example.com/', E'\\N', '{NULLS}', true, NULL, 302, false, 0, now(), now()),
	(10, 1, 'quote', 'https://example.com/', '"', E'{"a\\\\"}', true, NULL, 302, false, 0, now(), now()),
	(11, 1, 'folder', 'https://example.com/', E'C:\\', '{}', true, NULL, 302, false, 0, now(), now()),
	(12, 1, 'escaped', 'https://example.com/', E'say \\"hi\\", all', '{}', true, NULL, 302, false, 0, now(), now()),
	(13, 1, 'zero', 'https://example.com/', '0000-00-00', E'{"\\\\\\""}', true, NULL, 302, false, 0, now(), now()),
	(7, 1, 'pasted', E'https://bücher.example/straße|"a, b" 100%-x?c=\\=d#e', NULL, '{}', true, NULL, 302, true, 0, now(), now());
INSERT INTO urls (id, user_id, short_code, original_url)
	SELECT 20 + n, 1, code, 'https://example.com/' || n FROM unnest(ARRAY['+plus', '@ann', '~a', '$5', '!', 'v1.2', 'spring.', 'team/walks/구글',
		'users', 'users/5', 'café', '🚀', E'👩🏽\u200D💻', '1️⃣', 'T+B', '12.0', repeat('é', 127)]) WITH ORDINALITY codes (code, n);
INSERT INTO domains (host) VALUES ('go.example');
INSERT INTO urls (id, user_id, domain_id, short_code, original_url) VALUES
	(38, 1, 2, 'plain', 'https://example.com/on-go'), (39, 1, 2, 'docs', 'https://example.com/docs');
INSERT INTO events (occurred_at, url_id, user_id, event_type, details, source_id) VALUES
	(date_trunc('month', now()) + interval '1.000001 s', 1, 1, 'created', '{"entity": "url", "by": {"name": "=cmd|'' /C calc''!A0", "token_id": null}, "text": "line\nbreak, \"quotes\" 🎉"}', 99),
	(date_trunc('month', now()) + interval '1.000001 s', 1, 7, 'deleted', NULL, NULL);
INSERT INTO events (occurred_at, url_id, user_id, event_type, bot, browser, country)
	VALUES (date_trunc('month', now()), 4, 7, 'clicked', true, 'Googlebot', 'DE');
INSERT INTO events (occurred_at, url_id, user_id, event_type, bot, browser, country, kind, trigger)
	SELECT date_trunc('month', now()), 4, 7, 'clicked', kind <> 'person', kind, 'AT', kind, CASE WHEN kind < 'm' THEN 'qr' END
	FROM unnest(ARRAY['person', 'bot', 'preview', 'prefetch', 'monitor', 'tool', 'empty']) kind;
INSERT INTO rollup_recounts (day, url_id) VALUES (date_trunc('month', now()), 4);
SELECT setval('users_id_seq', 20), setval('urls_id_seq', 40);
