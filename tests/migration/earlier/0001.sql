


SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;


CREATE SCHEMA kb;


ALTER SCHEMA kb OWNER TO kb_migrator;


CREATE SCHEMA kb_space;


ALTER SCHEMA kb_space OWNER TO kb_migrator;


COMMENT ON SCHEMA kb_space IS 'One table of vectors for each embedding space';


SET default_tablespace = '';

SET default_table_access_method = heap;


CREATE TABLE kb.alembic_version (
    version_num character varying(32) NOT NULL
);


ALTER TABLE kb.alembic_version OWNER TO kb_migrator;


CREATE TABLE kb.chunk (
    revision_id bigint NOT NULL,
    ordinal integer NOT NULL,
    source_id integer NOT NULL,
    input_hash bytea NOT NULL,
    byte_start integer NOT NULL,
    byte_end integer NOT NULL,
    token_count integer NOT NULL,
    heading_path text[] NOT NULL,
    text text NOT NULL
);


ALTER TABLE kb.chunk OWNER TO kb_migrator;


COMMENT ON TABLE kb.chunk IS 'A span of a revision''s text';



CREATE TABLE kb.document (
    id bigint NOT NULL,
    source_id integer NOT NULL,
    path text NOT NULL COLLATE pg_catalog."C",
    slot smallint NOT NULL,
    live_revision_id bigint,
    pending_revision_id bigint,
    missing_since timestamp with time zone,
    vanished_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT document_slot_check CHECK (((slot >= 0) AND (slot <= 4095)))
)
WITH (fillfactor='80');


ALTER TABLE kb.document OWNER TO kb_migrator;


COMMENT ON TABLE kb.document IS 'One entry of a source, for as long as it exists there';



ALTER TABLE kb.document ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME kb.document_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);



CREATE TABLE kb.document_revision (
    id bigint NOT NULL,
    document_id bigint NOT NULL,
    content_hash bytea NOT NULL,
    recipe_id integer NOT NULL,
    title text,
    text text NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    media_type text NOT NULL,
    state text DEFAULT 'parsed'::text NOT NULL,
    run_id text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT document_revision_state_check CHECK ((state = ANY (ARRAY['parsed'::text, 'chunked'::text])))
);
ALTER TABLE ONLY kb.document_revision ALTER COLUMN text SET STORAGE EXTERNAL;


ALTER TABLE kb.document_revision OWNER TO kb_migrator;


COMMENT ON TABLE kb.document_revision IS 'One state of a document''s content under one recipe';



ALTER TABLE kb.document_revision ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME kb.document_revision_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);



CREATE TABLE kb.document_version (
    document_id bigint NOT NULL,
    token text COLLATE pg_catalog."C",
    content_hash bytea NOT NULL,
    recipe_id integer NOT NULL
)
WITH (fillfactor='60');


ALTER TABLE kb.document_version OWNER TO kb_migrator;


COMMENT ON TABLE kb.document_version IS 'What a document''s content was when last read; without a token it is read again';



CREATE TABLE kb.embedding_call (
    id bigint NOT NULL,
    run_id text NOT NULL,
    space_id integer NOT NULL,
    source_id integer,
    texts integer NOT NULL,
    tokens bigint NOT NULL,
    cost_usd numeric(14,8) NOT NULL,
    seconds double precision NOT NULL,
    outcome text NOT NULL,
    called_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT embedding_call_outcome_check CHECK ((outcome = ANY (ARRAY['answered'::text, 'refused'::text, 'failed'::text])))
);


ALTER TABLE kb.embedding_call OWNER TO kb_migrator;


COMMENT ON TABLE kb.embedding_call IS 'What was asked of embedding providers, and what it cost';



ALTER TABLE kb.embedding_call ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME kb.embedding_call_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);



CREATE TABLE kb.embedding_claim (
    space_id integer NOT NULL,
    input_hash bytea NOT NULL,
    shard_id integer NOT NULL,
    fence bigint NOT NULL,
    claimed_at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE kb.embedding_claim OWNER TO kb_migrator;


COMMENT ON TABLE kb.embedding_claim IS 'Texts a run is paying for; void once its shard''s lock is gone or its fence was raised';



CREATE TABLE kb.embedding_space (
    id integer NOT NULL,
    name text NOT NULL,
    fingerprint bytea NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    dimensions integer NOT NULL,
    "precision" text NOT NULL,
    query_prefix text DEFAULT ''::text NOT NULL,
    document_prefix text DEFAULT ''::text NOT NULL,
    settings jsonb DEFAULT '{}'::jsonb NOT NULL,
    state text DEFAULT 'building'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    promoted_at timestamp with time zone,
    CONSTRAINT embedding_space_dimensions_check CHECK (((dimensions >= 1) AND (dimensions <= 4000))),
    CONSTRAINT embedding_space_precision_check CHECK (("precision" = ANY (ARRAY['halfvec'::text, 'vector'::text]))),
    CONSTRAINT embedding_space_state_check CHECK ((state = ANY (ARRAY['building'::text, 'live'::text, 'retired'::text])))
);


ALTER TABLE kb.embedding_space OWNER TO kb_migrator;


COMMENT ON TABLE kb.embedding_space IS 'Provider, model, dimensions, precision and prefixes: one table of vectors each';



ALTER TABLE kb.embedding_space ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME kb.embedding_space_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);



CREATE TABLE kb.embedding_unused (
    input_hash bytea NOT NULL,
    since timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE kb.embedding_unused OWNER TO kb_migrator;


COMMENT ON TABLE kb.embedding_unused IS 'Input texts that no chunk had when they were last looked at';



CREATE TABLE kb.processing_recipe (
    id integer NOT NULL,
    fingerprint bytea NOT NULL,
    settings jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE kb.processing_recipe OWNER TO kb_migrator;


COMMENT ON TABLE kb.processing_recipe IS 'The versions and settings of parser, splitter and input text that make a revision';



ALTER TABLE kb.processing_recipe ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME kb.processing_recipe_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);



CREATE TABLE kb.quarantine (
    id bigint NOT NULL,
    stage text NOT NULL,
    document_id bigint,
    space_id integer,
    content_hash bytea NOT NULL,
    conditions bytea NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    attempts integer DEFAULT 1 NOT NULL,
    first_seen timestamp with time zone DEFAULT now() NOT NULL,
    last_seen timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT quarantine_document_check CHECK (((stage = 'embed'::text) = (document_id IS NULL))),
    CONSTRAINT quarantine_space_check CHECK (((stage = 'embed'::text) = (space_id IS NOT NULL))),
    CONSTRAINT quarantine_stage_check CHECK ((stage = ANY (ARRAY['read'::text, 'parse'::text, 'split'::text, 'embed'::text])))
);


ALTER TABLE kb.quarantine OWNER TO kb_migrator;


COMMENT ON TABLE kb.quarantine IS 'What cannot be processed, and why; tried again once its conditions have changed';



ALTER TABLE kb.quarantine ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME kb.quarantine_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);



CREATE TABLE kb.shard (
    id integer NOT NULL,
    source_id integer NOT NULL,
    slot_low smallint NOT NULL,
    slot_high smallint NOT NULL,
    fence bigint DEFAULT 0 NOT NULL,
    run_id text,
    leased_at timestamp with time zone,
    found_documents bigint,
    listed_at timestamp with time zone,
    CONSTRAINT shard_slots_check CHECK (((0 <= slot_low) AND (slot_low < slot_high) AND (slot_high <= 4096)))
);


ALTER TABLE kb.shard OWNER TO kb_migrator;


COMMENT ON TABLE kb.shard IS 'A range of a source''s slots, the fence of its last lease, and what its listing found';



ALTER TABLE kb.shard ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME kb.shard_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);



CREATE TABLE kb.source (
    id integer NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    uri text NOT NULL,
    settings jsonb DEFAULT '{}'::jsonb NOT NULL
);


ALTER TABLE kb.source OWNER TO kb_migrator;


COMMENT ON TABLE kb.source IS 'A named place documents come from';



ALTER TABLE kb.source ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME kb.source_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);



CREATE TABLE kb_space.embedding_1 (
    input_hash bytea NOT NULL,
    vector public.halfvec(384) NOT NULL
);
ALTER TABLE ONLY kb_space.embedding_1 ALTER COLUMN vector SET STORAGE PLAIN;


ALTER TABLE kb_space.embedding_1 OWNER TO kb_writer;


INSERT INTO kb.alembic_version VALUES
	('0001');



INSERT INTO kb.chunk VALUES
	(1, 0, 1, '\x7af4a6995411b8a2ccdb1c9faae36a1555957d7dc08a03efa24e6d9268611fc3', 0, 58, 15, '{Herons}', '# Herons

Herons stand in shallow water and wait for fish.'),
	(2, 0, 1, '\x68bad1889a2f46d69025442c0708bf200c53cd7fc4fb0a8b76f2b7c92ae08470', 0, 42, 14, '{Owls}', '# Owls

Owls are birds that hunt at night.'),
	(3, 0, 1, '\x06913921de4ac5339f3491802faf9e069c14c1587ed51f73d30a4bc4215db2e9', 0, 58, 15, '{Swifts}', '# Swifts

Swifts sleep while flying, high above the towns.');



INSERT INTO kb.document OVERRIDING SYSTEM VALUE VALUES
	(1, 1, 'herons.md', 962, 1, NULL, NULL, NULL, '2026-11-28 12:21:46.299954+00'),
	(2, 1, 'owls.md', 1479, 2, NULL, NULL, NULL, '2026-11-28 12:21:46.299954+00'),
	(3, 1, 'swifts.md', 697, 3, NULL, NULL, NULL, '2026-11-28 12:21:46.299954+00');



INSERT INTO kb.document_revision OVERRIDING SYSTEM VALUE VALUES
	(1, 1, '\x0fbe34b995b60caf3499024bb5ca554ea44e56bdf43b722810999d55b7a27d41', 1, 'Herons', '# Herons

Herons stand in shallow water and wait for fish.', '{}', '{}', 'text/markdown', 'chunked', '5808bc6a-145f-49af-a68b-2bc2ccae6b49', '2026-11-28 12:21:46.299954+00'),
	(2, 2, '\x0d373052de355257b1440f096baeb8e0286635ef8c01cae2919ddb3406cf205a', 1, 'Owls', '# Owls

Owls are birds that hunt at night.', '{}', '{}', 'text/markdown', 'chunked', '5808bc6a-145f-49af-a68b-2bc2ccae6b49', '2026-11-28 12:21:46.299954+00'),
	(3, 3, '\x1a8833d82cd3fda0504a3dc07eedcd062b2b2e5f463b55b48bf441fbd887f60a', 1, 'Swifts', '# Swifts

Swifts sleep while flying, high above the towns.', '{}', '{}', 'text/markdown', 'chunked', '5808bc6a-145f-49af-a68b-2bc2ccae6b49', '2026-11-28 12:21:46.299954+00');



INSERT INTO kb.document_version VALUES
	(1, '58:1795868476294341287:1795868476294341287:3669713', '\x0fbe34b995b60caf3499024bb5ca554ea44e56bdf43b722810999d55b7a27d41', 1),
	(2, '42:1795868476321655595:1795868476321655595:3669712', '\x0d373052de355257b1440f096baeb8e0286635ef8c01cae2919ddb3406cf205a', 1),
	(3, '58:1795868476324987951:1795868476324987951:3669709', '\x1a8833d82cd3fda0504a3dc07eedcd062b2b2e5f463b55b48bf441fbd887f60a', 1);



INSERT INTO kb.embedding_call OVERRIDING SYSTEM VALUE VALUES
	(1, '5808bc6a-145f-49af-a68b-2bc2ccae6b49', 1, 1, 3, 30, 0.00000000, 0.0010270069979014806, 'answered', '2026-11-28 12:21:47.272195+00');






INSERT INTO kb.embedding_space OVERRIDING SYSTEM VALUE VALUES
	(1, 'hash-words-1-384-2f3160', '\x2f316053f8cece4c483802efc05d1887824e2098a2b2889d1a08197312cf8dbd', 'hash', 'words-1', 384, 'halfvec', '', '', '{}', 'live', '2026-11-28 12:21:47.028781+00', '2026-11-28 12:21:47.028781+00');






INSERT INTO kb.processing_recipe OVERRIDING SYSTEM VALUE VALUES
	(1, '\xe4055a3e55ecd4385f41fe7d74be09e8cd0fad7c11bb2e8cb378339167e6d52f', '{"parser": 1, "splitter": 1, "splitting": {"size": 400, "unit": "tokens", "overlap": 50, "encoding": "cl100k_base", "strategy": "markdown"}, "input_text": 1}', '2026-11-28 12:21:46.142508+00');






INSERT INTO kb.shard OVERRIDING SYSTEM VALUE VALUES
	(1, 1, 0, 4096, 4, '5808bc6a-145f-49af-a68b-2bc2ccae6b49', '2026-11-28 12:21:47.717069+00', 3, '2026-11-28 12:21:46.372634+00');



INSERT INTO kb.source OVERRIDING SYSTEM VALUE VALUES
	(1, 'documents', 'files', 'documents', '{"shards": 1, "exclude": [], "include": ["**/*.md", "**/*.markdown", "**/*.txt", "**/*.rst", "**/*.html", "**/*.htm", "**/*.pdf"], "options": {}, "language": "", "max_document_bytes": 67108864}');



INSERT INTO kb_space.embedding_1 VALUES
	('\x06913921de4ac5339f3491802faf9e069c14c1587ed51f73d30a4bc4215db2e9', '[0,0,0,0.0635376,0,0.2541504,0,0,0,0,0,0,0,0,0,0,0,0,-0.0635376,0,0,0,0.0635376,0,-0.0635376,0,0,0.10998535,0,0,0,0,0,0,0,0,0,0.0635376,0,0,0,0.0635376,-0.0635376,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-0.0635376,0,0.0635376,0,-0.0635376,-0.1270752,0.0635376,0,0,0,0,0,0,0,0,-0.0635376,0,0,0.19067383,-0.0635376,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-0.0635376,0,0,0,0,0,0,0.0635376,0,0,0,0,0,-0.0635376,0,0.0635376,0,0,0,0,0,-0.0635376,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-0.0635376,0,0,0,0,0,0,0,0,-0.10998535,0,0,0,0,0,0,-0.0635376,0.0635376,0,0,0,0,0,0,0.0635376,-0.0635376,0.10998535,0,0,0,0,0,0,0.08984375,0,0,0,0,0,0,0,0,0.2541504,0,0,0,0,0,0,0,-0.10998535,0,0,0,0,-0.0635376,-0.0317688,0,0,0,0,0,0,0,0,-0.2541504,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-0.1270752,0,0.0635376,0,0,0,0,0.0635376,0,0,0,0,0,-0.0635376,0,0,0,0,0,0,0,0,-0.2541504,0,0,0,0,0,0,0,0,0,0,-0.0635376,0,0,0,0.0635376,0,0,0,0,0,0,0.10998535,0,-0.0635376,0,0,0,0,-0.0635376,0,0,0,0,0,0,0,0,0,-0.10998535,-0.0635376,0,0,0,0.0635376,0.2541504,0,0,0,0,0,0,0,0,0,0,-0.10998535,0,0,0.4404297,0.10998535,0.0635376,0,0,0,0,0,0,0.0635376,0,0,0.0635376,0,0,0,0,0,0,0,-0.0635376,0,0,0,0,0.0635376,0,0,0,0,0,0,0.17346191,0,0,0,0,0,0,0.0635376,0.0635376,0,0,0.10998535,0,0,0,0,-0.1270752,0.0635376,0.19067383,0,0,-0.0635376,-0.1270752,0,0,0,0,0.0635376,0,0.0635376,0,0,0,0,0,0.0635376,0,0,0,0,0,0,0,0,0.10998535,0,0,0,0,-0.0635376,0,0,0,0,0,0,0,0,0,0]'),
	('\x68bad1889a2f46d69025442c0708bf200c53cd7fc4fb0a8b76f2b7c92ae08470', '[0,0,0,0,-0.084350586,0,0,0,0,0,0,0,0,0,0,0,0,0.084350586,0,0,0,0,0,0,0,0,0,0,-0.33740234,0,0,0.084350586,0,0,0,0,0.084350586,0,0,0,0,0,0.084350586,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-0.084350586,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0.5,0,0,0,0,0,0,0,0,0,0,0,0,-0.084350586,0.084350586,-0.1459961,0,0,-0.084350586,0,0,-0.33740234,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0.084350586,-0.119262695,-0.084350586,0,0,0.084350586,0,0,0,0,0,0,0,0,0,0,0,0,0,0.084350586,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0.084350586,0,0,0,0,0,0,0.084350586,0,0,0,0,0,0,0,0,0,0.084350586,0,0,0,0,0.042175293,0,-0.084350586,0,0,0,0,-0.084350586,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-0.084350586,0,0,0,0,0.084350586,0,0,0,0,0,0,0,0,0,0.042175293,0,-0.16870117,0,0,0.084350586,0,0,0,0.084350586,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0.084350586,0,0,0,0,0,0,0,0,-0.084350586,0.33740234,0,0,-0.06161499,0,0,0,0,0,0,0,0,-0.1459961,0,0,0,0,0,0,0.18811035,0,0,0,0,0,0,0,0,0.1459961,0,0,0,0,0,0,0,0,0,0,0,0,0.1459961,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-0.084350586,-0.084350586,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-0.23022461,0,0]'),
	('\x7af4a6995411b8a2ccdb1c9faae36a1555957d7dc08a03efa24e6d9268611fc3', '[0.06500244,-0.11248779,-0.06500244,0,0,0,0,0,0,0,0,0,0,0,-0.06500244,0,0,-0.091918945,0,0,-0.06500244,0,0,0,0,0,0,0,0,0,0,0,0.06500244,0,-0.06500244,0,0.03250122,0,0,0,0,0,-0.26000977,0,-0.06500244,0,0,0,0,0,0,0,0.11248779,0,0,0,0,0,0,0,0,0.06500244,0,0,0,0,0,0,0,-0.11248779,0,0,0,0,0,-0.11248779,0,0,0,-0.06500244,0,0,0,0,0,0,0,0.13000488,0,0,0.06500244,0,0,-0.06500244,0,0,0,0,0,-0.06500244,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0.03250122,-0.11248779,0,0,0,-0.06500244,0,0,0.06500244,0,0,0,0,-0.06500244,-0.06500244,0,0,0.06500244,0,0,0.06500244,0,0,0,0,0,0,0.06500244,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0.06500244,0,0,0,-0.13000488,0,0,0,0.06500244,0,-0.11248779,0,0.06500244,0,0,0,0,0,0,0,0,0,0,0,0.06500244,0,0,0,-0.06500244,0,0.11248779,0,0,0,0,0.06500244,0,0,0,0,-0.26000977,-0.06500244,0,0,0,0,0,0,0,0,0.06500244,0,0,0,0,0.03250122,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-0.06500244,0,0.11248779,0,-0.06500244,0,-0.11248779,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-0.06500244,0,0,0,0,0,0,0,0,0,0.26000977,-0.06500244,0,0,0,0,-0.13000488,0,0.32495117,0,-0.32495117,0.06500244,0,0,0,0,0,0,0,-0.11248779,0,0,0,0,0,0,-0.45043945,-0.06500244,0,0,0,0,0,0,0,0,0,0,0.06500244,-0.11248779,0.06500244,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-0.06500244,0,0,0.06500244,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,-0.06500244,0,0,0,0.06500244,0.06500244,0,0,0,0.06500244,0,0,0,0,0,0.06500244,0,0.06500244,0,0]');



SELECT pg_catalog.setval('kb.document_id_seq', 3, true);



SELECT pg_catalog.setval('kb.document_revision_id_seq', 3, true);



SELECT pg_catalog.setval('kb.embedding_call_id_seq', 1, true);



SELECT pg_catalog.setval('kb.embedding_space_id_seq', 1, true);



SELECT pg_catalog.setval('kb.processing_recipe_id_seq', 1, true);



SELECT pg_catalog.setval('kb.quarantine_id_seq', 1, false);



SELECT pg_catalog.setval('kb.shard_id_seq', 1, true);



SELECT pg_catalog.setval('kb.source_id_seq', 1, true);



ALTER TABLE ONLY kb.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);



ALTER TABLE ONLY kb.chunk
    ADD CONSTRAINT chunk_pkey PRIMARY KEY (revision_id, ordinal);



ALTER TABLE ONLY kb.document
    ADD CONSTRAINT document_live_revision_id_key UNIQUE (live_revision_id);



ALTER TABLE ONLY kb.document
    ADD CONSTRAINT document_pkey PRIMARY KEY (id);



ALTER TABLE ONLY kb.document_revision
    ADD CONSTRAINT document_revision_document_id_content_hash_recipe_id_key UNIQUE (document_id, content_hash, recipe_id);



ALTER TABLE ONLY kb.document_revision
    ADD CONSTRAINT document_revision_pkey PRIMARY KEY (id);



ALTER TABLE ONLY kb.document
    ADD CONSTRAINT document_source_id_path_key UNIQUE (source_id, path);



ALTER TABLE ONLY kb.document_version
    ADD CONSTRAINT document_version_pkey PRIMARY KEY (document_id);



ALTER TABLE ONLY kb.embedding_call
    ADD CONSTRAINT embedding_call_pkey PRIMARY KEY (id);



ALTER TABLE ONLY kb.embedding_claim
    ADD CONSTRAINT embedding_claim_pkey PRIMARY KEY (space_id, input_hash);



ALTER TABLE ONLY kb.embedding_space
    ADD CONSTRAINT embedding_space_fingerprint_key UNIQUE (fingerprint);



ALTER TABLE ONLY kb.embedding_space
    ADD CONSTRAINT embedding_space_name_key UNIQUE (name);



ALTER TABLE ONLY kb.embedding_space
    ADD CONSTRAINT embedding_space_pkey PRIMARY KEY (id);



ALTER TABLE ONLY kb.embedding_unused
    ADD CONSTRAINT embedding_unused_pkey PRIMARY KEY (input_hash);



ALTER TABLE ONLY kb.processing_recipe
    ADD CONSTRAINT processing_recipe_fingerprint_key UNIQUE (fingerprint);



ALTER TABLE ONLY kb.processing_recipe
    ADD CONSTRAINT processing_recipe_pkey PRIMARY KEY (id);



ALTER TABLE ONLY kb.quarantine
    ADD CONSTRAINT quarantine_pkey PRIMARY KEY (id);



ALTER TABLE ONLY kb.shard
    ADD CONSTRAINT shard_pkey PRIMARY KEY (id);



ALTER TABLE ONLY kb.shard
    ADD CONSTRAINT shard_source_id_slot_low_slot_high_key UNIQUE (source_id, slot_low, slot_high);



ALTER TABLE ONLY kb.source
    ADD CONSTRAINT source_name_key UNIQUE (name);



ALTER TABLE ONLY kb.source
    ADD CONSTRAINT source_pkey PRIMARY KEY (id);



ALTER TABLE ONLY kb_space.embedding_1
    ADD CONSTRAINT embedding_1_pkey PRIMARY KEY (input_hash);



CREATE INDEX chunk_input_hash_idx ON kb.chunk USING btree (input_hash);



CREATE INDEX document_pending_idx ON kb.document USING btree (source_id, slot) WHERE ((pending_revision_id IS NOT NULL) OR (vanished_at IS NOT NULL));



CREATE INDEX document_revision_metadata_idx ON kb.document_revision USING gin (metadata);



CREATE INDEX document_revision_tags_idx ON kb.document_revision USING gin (tags);



CREATE INDEX document_source_id_slot_idx ON kb.document USING btree (source_id, slot);



CREATE INDEX document_version_content_hash_idx ON kb.document_version USING btree (content_hash);



CREATE INDEX embedding_call_run_id_idx ON kb.embedding_call USING btree (run_id);



CREATE UNIQUE INDEX embedding_space_live_idx ON kb.embedding_space USING btree (state) WHERE (state = 'live'::text);



CREATE INDEX embedding_unused_since_idx ON kb.embedding_unused USING btree (since);



CREATE UNIQUE INDEX quarantine_document_idx ON kb.quarantine USING btree (document_id) WHERE (document_id IS NOT NULL);



CREATE UNIQUE INDEX quarantine_text_idx ON kb.quarantine USING btree (space_id, content_hash) WHERE (space_id IS NOT NULL);



CREATE INDEX embedding_1_hnsw ON kb_space.embedding_1 USING hnsw (vector public.halfvec_cosine_ops);



ALTER TABLE ONLY kb.chunk
    ADD CONSTRAINT chunk_revision_id_fkey FOREIGN KEY (revision_id) REFERENCES kb.document_revision(id) ON DELETE CASCADE;



ALTER TABLE ONLY kb.document_revision
    ADD CONSTRAINT document_revision_document_id_fkey FOREIGN KEY (document_id) REFERENCES kb.document(id) ON DELETE CASCADE;



ALTER TABLE ONLY kb.document_revision
    ADD CONSTRAINT document_revision_recipe_id_fkey FOREIGN KEY (recipe_id) REFERENCES kb.processing_recipe(id);



ALTER TABLE ONLY kb.document
    ADD CONSTRAINT document_source_id_fkey FOREIGN KEY (source_id) REFERENCES kb.source(id) ON DELETE CASCADE;



ALTER TABLE ONLY kb.document_version
    ADD CONSTRAINT document_version_document_id_fkey FOREIGN KEY (document_id) REFERENCES kb.document(id) ON DELETE CASCADE;



ALTER TABLE ONLY kb.embedding_claim
    ADD CONSTRAINT embedding_claim_space_id_fkey FOREIGN KEY (space_id) REFERENCES kb.embedding_space(id) ON DELETE CASCADE;



ALTER TABLE ONLY kb.quarantine
    ADD CONSTRAINT quarantine_document_id_fkey FOREIGN KEY (document_id) REFERENCES kb.document(id) ON DELETE CASCADE;



ALTER TABLE ONLY kb.quarantine
    ADD CONSTRAINT quarantine_space_id_fkey FOREIGN KEY (space_id) REFERENCES kb.embedding_space(id) ON DELETE CASCADE;



ALTER TABLE ONLY kb.shard
    ADD CONSTRAINT shard_source_id_fkey FOREIGN KEY (source_id) REFERENCES kb.source(id) ON DELETE CASCADE;



GRANT USAGE ON SCHEMA kb TO kb_writer;
GRANT USAGE ON SCHEMA kb TO kb_reader;



GRANT ALL ON SCHEMA kb_space TO kb_writer;
GRANT USAGE ON SCHEMA kb_space TO kb_reader;



GRANT SELECT ON TABLE kb.alembic_version TO kb_writer;
GRANT SELECT ON TABLE kb.alembic_version TO kb_reader;



GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE kb.chunk TO kb_writer;
GRANT SELECT ON TABLE kb.chunk TO kb_reader;



GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE kb.document TO kb_writer;
GRANT SELECT ON TABLE kb.document TO kb_reader;



GRANT USAGE ON SEQUENCE kb.document_id_seq TO kb_writer;



GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE kb.document_revision TO kb_writer;
GRANT SELECT ON TABLE kb.document_revision TO kb_reader;



GRANT USAGE ON SEQUENCE kb.document_revision_id_seq TO kb_writer;



GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE kb.document_version TO kb_writer;
GRANT SELECT ON TABLE kb.document_version TO kb_reader;



GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE kb.embedding_call TO kb_writer;
GRANT SELECT ON TABLE kb.embedding_call TO kb_reader;



GRANT USAGE ON SEQUENCE kb.embedding_call_id_seq TO kb_writer;



GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE kb.embedding_claim TO kb_writer;
GRANT SELECT ON TABLE kb.embedding_claim TO kb_reader;



GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE kb.embedding_space TO kb_writer;
GRANT SELECT ON TABLE kb.embedding_space TO kb_reader;



GRANT USAGE ON SEQUENCE kb.embedding_space_id_seq TO kb_writer;



GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE kb.embedding_unused TO kb_writer;
GRANT SELECT ON TABLE kb.embedding_unused TO kb_reader;



GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE kb.processing_recipe TO kb_writer;
GRANT SELECT ON TABLE kb.processing_recipe TO kb_reader;



GRANT USAGE ON SEQUENCE kb.processing_recipe_id_seq TO kb_writer;



GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE kb.quarantine TO kb_writer;
GRANT SELECT ON TABLE kb.quarantine TO kb_reader;



GRANT USAGE ON SEQUENCE kb.quarantine_id_seq TO kb_writer;



GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE kb.shard TO kb_writer;
GRANT SELECT ON TABLE kb.shard TO kb_reader;



GRANT USAGE ON SEQUENCE kb.shard_id_seq TO kb_writer;



GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE kb.source TO kb_writer;
GRANT SELECT ON TABLE kb.source TO kb_reader;



GRANT USAGE ON SEQUENCE kb.source_id_seq TO kb_writer;



GRANT SELECT ON TABLE kb_space.embedding_1 TO kb_reader;



ALTER DEFAULT PRIVILEGES FOR ROLE kb_migrator IN SCHEMA kb GRANT USAGE ON SEQUENCES TO kb_writer;



ALTER DEFAULT PRIVILEGES FOR ROLE kb_migrator IN SCHEMA kb GRANT SELECT,INSERT,DELETE,UPDATE ON TABLES TO kb_writer;
ALTER DEFAULT PRIVILEGES FOR ROLE kb_migrator IN SCHEMA kb GRANT SELECT ON TABLES TO kb_reader;



ALTER DEFAULT PRIVILEGES FOR ROLE kb_migrator IN SCHEMA kb_space GRANT SELECT ON TABLES TO kb_reader;



ALTER DEFAULT PRIVILEGES FOR ROLE kb_writer IN SCHEMA kb_space GRANT SELECT ON TABLES TO kb_reader;




