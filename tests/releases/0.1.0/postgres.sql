CREATE TABLE public.changes (
    "position" bigint NOT NULL,
    ids uuid[] NOT NULL,
    noted_at timestamp with time zone NOT NULL
);
ALTER TABLE ONLY public.changes ALTER COLUMN ids SET STORAGE EXTERNAL;
CREATE TABLE public.changes_forgotten (
    id integer NOT NULL,
    "position" bigint NOT NULL
);
CREATE TABLE public.deliveries (
    id uuid NOT NULL,
    text_id text COLLATE pg_catalog."C",
    phone text COLLATE pg_catalog."C",
    carrier text COLLATE pg_catalog."C",
    status text NOT NULL COLLATE pg_catalog."C",
    cost numeric,
    error_code text COLLATE pg_catalog."C",
    created_at timestamp with time zone,
    completed_at timestamp with time zone,
    received_at timestamp with time zone NOT NULL,
    listed_at timestamp with time zone NOT NULL,
    source text NOT NULL COLLATE pg_catalog."C",
    standing bytea NOT NULL,
    kind text NOT NULL COLLATE pg_catalog."C",
    body bytea NOT NULL,
    signature bytea,
    times bigint NOT NULL,
    CONSTRAINT deliveries_source_check CHECK ((source = ANY (ARRAY['webhook'::text, 'poll'::text, 'send'::text]))),
    CONSTRAINT deliveries_status_check CHECK ((status = ANY (ARRAY['sent'::text, 'delivered'::text, 'failed'::text])))
);
CREATE TABLE public.hour_counts (
    hour timestamp with time zone NOT NULL,
    part bigint NOT NULL,
    carrier text COLLATE pg_catalog."C",
    status text NOT NULL COLLATE pg_catalog."C",
    error_code text COLLATE pg_catalog."C",
    cost numeric,
    second bigint,
    longest interval,
    count bigint NOT NULL,
    CONSTRAINT hour_counts_status_check CHECK ((status = ANY (ARRAY['sent'::text, 'delivered'::text, 'failed'::text])))
);
CREATE TABLE public.hours (
    hour timestamp with time zone NOT NULL,
    claim bytea,
    summed boolean NOT NULL
);
CREATE TABLE public.migrations (
    version bigint NOT NULL,
    name text NOT NULL
);
CREATE TABLE public.older_events (
    delivery_id uuid NOT NULL,
    digest bytea NOT NULL,
    body bytea NOT NULL,
    signature bytea,
    kind text NOT NULL COLLATE pg_catalog."C",
    status text NOT NULL COLLATE pg_catalog."C",
    source text NOT NULL COLLATE pg_catalog."C",
    received_at timestamp with time zone NOT NULL,
    times bigint NOT NULL,
    CONSTRAINT older_events_source_check CHECK ((source = ANY (ARRAY['webhook'::text, 'poll'::text, 'send'::text]))),
    CONSTRAINT older_events_status_check CHECK ((status = ANY (ARRAY['sent'::text, 'delivered'::text, 'failed'::text])))
);
CREATE TABLE public.poll_turn (
    id integer NOT NULL,
    free_at timestamp with time zone NOT NULL
);
CREATE TABLE public.polls (
    delivery_id uuid NOT NULL,
    listed_at timestamp with time zone NOT NULL,
    next_at timestamp with time zone,
    attempts integer NOT NULL
);
CREATE TABLE public.quarantine (
    digest bytea NOT NULL,
    body bytea NOT NULL,
    signature bytea NOT NULL,
    reason text NOT NULL COLLATE pg_catalog."C",
    detail text NOT NULL,
    received_at timestamp with time zone NOT NULL,
    times bigint NOT NULL
);
CREATE TABLE public.sends (
    key text NOT NULL COLLATE pg_catalog."C",
    fingerprint bytea NOT NULL,
    phone text NOT NULL COLLATE pg_catalog."C",
    began_at timestamp with time zone NOT NULL,
    outcome text COLLATE pg_catalog."C",
    answer bytea,
    deposit_url text COLLATE pg_catalog."C",
    CONSTRAINT sends_outcome_check CHECK ((outcome = ANY (ARRAY['accepted'::text, 'refused'::text, 'unclear'::text])))
);
INSERT INTO public.changes VALUES (725, '{b2afd091-ff1f-488a-84ad-8208f7cd36cd}', '2026-11-25 17:47:49.333562+00');
INSERT INTO public.changes VALUES (727, '{42c23d2b-9587-4e4c-b9c2-0a6ce182e7f8}', '2026-11-25 17:47:49.354355+00');
INSERT INTO public.changes VALUES (730, '{ddddeda1-e964-4dd9-ae51-c018a23c4f3f}', '2026-11-25 17:47:49.388473+00');
INSERT INTO public.changes VALUES (733, '{5766deac-e26d-4985-91ad-b6cbc6cca523}', '2026-11-25 17:47:49.406585+00');
INSERT INTO public.changes VALUES (736, '{5766deac-e26d-4985-91ad-b6cbc6cca523}', '2026-11-25 17:47:49.413492+00');
INSERT INTO public.changes VALUES (738, '{4e225066-66f8-8660-8890-ea6dc7a31282}', '2026-11-25 17:47:49.437352+00');
INSERT INTO public.changes VALUES (741, '{e33d9d8e-ad26-4f05-bf81-eef24b9a3538}', '2026-11-25 17:47:49.476857+00');
INSERT INTO public.changes_forgotten VALUES (1, 0);
INSERT INTO public.deliveries VALUES ('b2afd091-ff1f-488a-84ad-8208f7cd36cd', NULL, '+84981234567', 'viettel', 'delivered', 0.022, NULL, '2026-11-25 17:47:24+00', '2026-11-25 17:47:49+00', '2026-11-25 17:47:49.330518+00', '2026-11-25 17:47:24+00', 'webhook', '\x028006611d6ce29b40013c14b00acd3f959a5aa4f6d35f305d3a602c6c03299febf25458eb4609c2cd51', 'otp.delivered', '\x7b2274797065223a226f74702e64656c697665726564222c226964223a2262326166643039312d666631662d343838612d383461642d383230386637636433366364222c2270686f6e65223a222b3834393831323334353637222c2263617272696572223a227669657474656c222c22737461747573223a2264656c697665726564222c22636f7374223a302e3032322c226572726f725f636f6465223a6e756c6c2c22637265617465645f6174223a22323032362d31312d32355431373a34373a32345a222c22636f6d706c657465645f6174223a22323032362d31312d32355431373a34373a34395a227d', '\x46f354373cdc81af425760f05b679e4291c329fa469b366b9bbbf0895d52413f', 1);
INSERT INTO public.deliveries VALUES ('42c23d2b-9587-4e4c-b9c2-0a6ce182e7f8', NULL, '+84981234567', 'viettel', 'failed', 0, 'no_answer', '2026-11-25 17:47:24+00', '2026-11-25 17:47:49+00', '2026-11-25 17:47:49.353775+00', '2026-11-25 17:47:24+00', 'webhook', '\x028006611d6ce29b400049e80f50956d88a721cad17f92f72123e48aae0bf96c628ada10f881eb493adb', 'otp.failed', '\x7b2274797065223a226f74702e6661696c6564222c226964223a2234326332336432622d393538372d346534632d623963322d306136636531383265376638222c2270686f6e65223a222b3834393831323334353637222c2263617272696572223a227669657474656c222c22737461747573223a226661696c6564222c22636f7374223a302c226572726f725f636f6465223a226e6f5f616e73776572222c22637265617465645f6174223a22323032362d31312d32355431373a34373a32345a222c22636f6d706c657465645f6174223a22323032362d31312d32355431373a34373a34395a227d', '\x9fd623994c2fb58084e9a04a369da6b6fb9204e64c56597ef90faccfcb68a57b', 1);
INSERT INTO public.deliveries VALUES ('ddddeda1-e964-4dd9-ae51-c018a23c4f3f', NULL, '+84981234567', 'viettel', 'delivered', 0.022, NULL, '2026-11-25 17:47:24+00', '2026-11-25 17:47:49+00', '2026-11-25 17:47:49.387758+00', '2026-11-25 17:47:24+00', 'webhook', '\x028006611d6ce29b400186fd9b48c9fb72f9c4c298e3a969c09f076693249f5d3157f82886164f51f774', 'otp.delivered', '\x7b2274797065223a226f74702e64656c697665726564222c226964223a2264646464656461312d653936342d346464392d616535312d633031386132336334663366222c2270686f6e65223a222b3834393831323334353637222c2263617272696572223a227669657474656c222c22737461747573223a2264656c697665726564222c22636f7374223a302e3032322c226572726f725f636f6465223a6e756c6c2c22637265617465645f6174223a22323032362d31312d32355431373a34373a32345a222c22636f6d706c657465645f6174223a22323032362d31312d32355431373a34373a34395a227d', '\x28e675724e62f66cea4414ee49bf040f2f91cca8d7d5097c74d900d79d45a00c', 2);
INSERT INTO public.deliveries VALUES ('5766deac-e26d-4985-91ad-b6cbc6cca523', NULL, '+84981234567', 'viettel', 'delivered', 0.022, NULL, '2026-11-25 16:47:24+00', '2026-11-25 17:47:49+00', '2026-11-25 17:47:49.405726+00', '2026-11-25 17:47:24+00', 'webhook', '\x028006611d6ce29b40011a64bc6b75358dbee35ac376de129397ed2b929a4a3da151a350b9887f8fc402', 'otp.delivered', '\x7b2274797065223a226f74702e64656c697665726564222c226964223a2235373636646561632d653236642d343938352d393161642d623663626336636361353233222c2270686f6e65223a222b3834393831323334353637222c2263617272696572223a227669657474656c222c22737461747573223a2264656c697665726564222c22636f7374223a302e3032322c226572726f725f636f6465223a6e756c6c2c22637265617465645f6174223a22323032362d31312d32355431373a34373a32345a222c22636f6d706c657465645f6174223a22323032362d31312d32355431373a34373a34395a227d', '\x76a89af1c8156e65566c986ca7df242ed6d96596c89a45e45f3f516314cdeece', 1);
INSERT INTO public.deliveries VALUES ('4e225066-66f8-8660-8890-ea6dc7a31282', 'told-by-a-caller', '+84981234567', 'viettel', 'sent', NULL, NULL, NULL, NULL, '2026-11-25 17:47:49.436782+00', '2026-11-25 17:47:49.436782+00', 'send', '\x00000000000000000000c204bfdcff9efd6a09c2061bc0749c52bd4c813d10f962cdbb0b3de160f0ccec', 'watch', '\x7b2270686f6e65223a222b3834393831323334353637222c2263617272696572223a227669657474656c227d', NULL, 1);
INSERT INTO public.deliveries VALUES ('e33d9d8e-ad26-4f05-bf81-eef24b9a3538', NULL, '+84981234567', 'viettel', 'sent', 0.022, NULL, NULL, NULL, '2026-11-25 17:47:49.47542+00', '2026-11-25 17:47:49.47542+00', 'send', '\x0100000000000000000010acea0928209cd80ce3b6733c082083e2fce78a935130baff21d827c927fbe9', 'send', '\x7b226f6b223a747275652c226964223a2265333364396438652d616432362d346630352d626638312d656566323462396133353338222c2263617272696572223a227669657474656c222c22737461747573223a2273656e74222c22636f7374223a302e3032322c2262616c616e6365223a3130302e3038387d', NULL, 1);
INSERT INTO public.hours VALUES ('2026-11-25 16:00:00+00', NULL, false);
INSERT INTO public.migrations VALUES (1, '0001_custody');
INSERT INTO public.older_events VALUES ('5766deac-e26d-4985-91ad-b6cbc6cca523', '\x27f9439c3716982b6422eb651e93a0eb25409c254e1c36502c9df3f7f460ca2b', '\x7b2274797065223a226f74702e6661696c6564222c226964223a2235373636646561632d653236642d343938352d393161642d623663626336636361353233222c2270686f6e65223a222b3834393831323334353637222c2263617272696572223a227669657474656c222c22737461747573223a226661696c6564222c22636f7374223a302c226572726f725f636f6465223a226e6f5f616e73776572222c22637265617465645f6174223a22323032362d31312d32355431363a34373a32345a222c22636f6d706c657465645f6174223a22323032362d31312d32355431363a34373a34395a227d', '\x563a38293606cea635d0b9f925d2d8b3101f47f7a3cba5df7e88164deda5674d', 'otp.failed', 'failed', 'webhook', '2026-11-25 17:47:49.409733+00', 1);
INSERT INTO public.poll_turn VALUES (1, '2026-11-25 17:47:49.200968+00');
INSERT INTO public.polls VALUES ('4e225066-66f8-8660-8890-ea6dc7a31282', '2026-11-25 17:47:49.436782+00', NULL, 0);
INSERT INTO public.polls VALUES ('e33d9d8e-ad26-4f05-bf81-eef24b9a3538', '2026-11-25 17:47:49.47542+00', NULL, 0);
INSERT INTO public.quarantine VALUES ('\xa4a60e02f9a847dc75ceac1ef54d261471109a9dcc5cba8a03aabb9fd1d6f5f7', '\x7b2274797065223a226f74702e64656c697665726564222c226964223a2274657374222c2270686f6e65223a222b3834393831323334353637222c2263617272696572223a227669657474656c222c22737461747573223a2264656c697665726564222c22636f7374223a302e3032322c226572726f725f636f6465223a6e756c6c2c22637265617465645f6174223a22323032362d31312d32355431373a34373a32345a222c22636f6d706c657465645f6174223a22323032362d31312d32355431373a34373a34395a227d', '\x6ae9c4fbaebc4364d5b48cbeb05a21183d262d9998ea216b4cbcbe1ae0d390df', 'test_ping', 'a test ping (id `test`): no OTP was sent', '2026-11-25 17:47:49.368909+00', 1);
INSERT INTO public.sends VALUES ('a-key', '\x88d4ad263a0e92a0cdb3c64033358ecf5764e5b2d549bf72c91f1eeb84635d83', '+84981234567', '2026-11-25 17:47:49.469267+00', 'accepted', '\x7b226f6b223a747275652c226964223a2265333364396438652d616432362d346630352d626638312d656566323462396133353338222c2263617272696572223a227669657474656c222c22737461747573223a2273656e74222c22636f7374223a302e3032322c2262616c616e6365223a3130302e3038387d', NULL);
ALTER TABLE ONLY public.changes_forgotten
    ADD CONSTRAINT changes_forgotten_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.changes
    ADD CONSTRAINT changes_pkey PRIMARY KEY ("position");
ALTER TABLE ONLY public.deliveries
    ADD CONSTRAINT deliveries_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.hour_counts
    ADD CONSTRAINT hour_counts_pkey PRIMARY KEY (hour, part);
ALTER TABLE ONLY public.hours
    ADD CONSTRAINT hours_pkey PRIMARY KEY (hour);
ALTER TABLE ONLY public.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.older_events
    ADD CONSTRAINT older_events_pkey PRIMARY KEY (delivery_id, digest);
ALTER TABLE ONLY public.poll_turn
    ADD CONSTRAINT poll_turn_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.polls
    ADD CONSTRAINT polls_pkey PRIMARY KEY (delivery_id);
ALTER TABLE ONLY public.quarantine
    ADD CONSTRAINT quarantine_pkey PRIMARY KEY (digest);
ALTER TABLE ONLY public.sends
    ADD CONSTRAINT sends_pkey PRIMARY KEY (key);
CREATE INDEX deliveries_by_carrier ON public.deliveries USING btree (carrier, status, listed_at);
CREATE INDEX deliveries_by_error_code ON public.deliveries USING btree (error_code, listed_at) WHERE (error_code IS NOT NULL);
CREATE INDEX deliveries_by_phone ON public.deliveries USING btree (phone, date_trunc('month'::text, (listed_at AT TIME ZONE 'UTC'::text)));
CREATE INDEX deliveries_by_status ON public.deliveries USING btree (status, listed_at);
CREATE INDEX hours_to_sum_up ON public.hours USING btree (hour) WHERE (NOT summed);
CREATE INDEX polls_again ON public.polls USING btree (next_at) WHERE (next_at IS NOT NULL);
CREATE INDEX polls_first ON public.polls USING btree (listed_at) WHERE (next_at IS NULL);
CREATE INDEX quarantine_by_time ON public.quarantine USING btree (received_at, digest);
CREATE INDEX sends_to_forget ON public.sends USING btree (began_at) WHERE (outcome = ANY (ARRAY['accepted'::text, 'refused'::text]));
