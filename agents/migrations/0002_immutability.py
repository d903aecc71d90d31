"""What the database itself refuses, whoever asks: forms, scripts and SQL prompts alike.

    agents_agentversion      a published version never changes and is never deleted (its author may become null, when the
                             person's account is deleted); agent and number never change, published or not
    agents_versionfallback   the fallbacks of a published version never change
    agents_agent             the slug never changes; only a published version of the same agent can be live
    agents_publication       append-only (the actor may become null)

So an agent that was ever live cannot be deleted: it is switched off (`is_active`) instead, and its history stays readable.
A draft, and an agent that has nothing but a draft, can be deleted. TRUNCATE fires no row trigger, so tests can empty tables.
Refusals are integrity errors (SQLSTATE 23000) that name the rule as their constraint, and what to do instead as their hint.
"""

from django.db import migrations

VERSIONS = """
CREATE FUNCTION agents_guard_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.published_at IS NOT NULL THEN
            RAISE EXCEPTION 'version % was published and cannot be deleted', OLD.number
                USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'published_version_is_immutable',
                      HINT = 'Switch the agent off instead; its history stays.';
        END IF;
        RETURN OLD;
    END IF;
    IF (NEW.id, NEW.agent_id, NEW.number) IS DISTINCT FROM (OLD.id, OLD.agent_id, OLD.number) THEN
        RAISE EXCEPTION 'the agent and the number of a version never change'
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'version_identity_is_fixed',
                  HINT = 'Start a new draft instead.';
    END IF;
    -- Compared as JSON, so that columns of later migrations are guarded too.
    IF OLD.published_at IS NOT NULL AND (
        to_jsonb(NEW) - 'author_id' IS DISTINCT FROM to_jsonb(OLD) - 'author_id'
        OR (NEW.author_id IS NOT NULL AND NEW.author_id IS DISTINCT FROM OLD.author_id)
    ) THEN
        RAISE EXCEPTION 'version % was published and cannot be changed', OLD.number
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'published_version_is_immutable',
                  HINT = 'Start a new draft instead.';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER guard_version BEFORE UPDATE OR DELETE ON agents_agentversion
    FOR EACH ROW EXECUTE FUNCTION agents_guard_version();
"""

DROP_VERSIONS = """
DROP TRIGGER guard_version ON agents_agentversion;
DROP FUNCTION agents_guard_version();
"""

FALLBACKS = """
CREATE FUNCTION agents_guard_fallback() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    parent record;
BEGIN
    -- FOR SHARE waits for a publication under way, and makes a later one wait for this change: neither slips past the other.
    FOR parent IN
        SELECT number, published_at FROM agents_agentversion
        WHERE id IN (
            CASE WHEN TG_OP <> 'INSERT' THEN OLD.version_id END,
            CASE WHEN TG_OP <> 'DELETE' THEN NEW.version_id END
        )
        ORDER BY id FOR SHARE
    LOOP
        IF parent.published_at IS NOT NULL THEN
            RAISE EXCEPTION 'version % was published and its fallbacks cannot be changed', parent.number
                USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'published_version_is_immutable',
                      HINT = 'Start a new draft instead.';
        END IF;
    END LOOP;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;

CREATE TRIGGER guard_fallback BEFORE INSERT OR UPDATE OR DELETE ON agents_versionfallback
    FOR EACH ROW EXECUTE FUNCTION agents_guard_fallback();
"""

DROP_FALLBACKS = """
DROP TRIGGER guard_fallback ON agents_versionfallback;
DROP FUNCTION agents_guard_fallback();
"""

AGENTS = """
ALTER TABLE agents_agent ADD CONSTRAINT live_version_is_of_same_agent
    FOREIGN KEY (id, live_version_id) REFERENCES agents_agentversion (agent_id, id);

CREATE FUNCTION agents_guard_slug() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the address name of agent % never changes', OLD.slug
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'agent_slug_is_fixed',
              HINT = 'Create another agent under the new name.';
END $$;

CREATE TRIGGER guard_slug BEFORE UPDATE ON agents_agent
    FOR EACH ROW WHEN (NEW.slug IS DISTINCT FROM OLD.slug OR NEW.id IS DISTINCT FROM OLD.id)
    EXECUTE FUNCTION agents_guard_slug();

CREATE FUNCTION agents_guard_live_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A version of another agent, or none at all, is left to the foreign key above.
    IF EXISTS (SELECT FROM agents_agentversion WHERE id = NEW.live_version_id AND published_at IS NULL) THEN
        RAISE EXCEPTION 'a draft cannot be live'
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'live_version_is_published',
                  HINT = 'Publish the draft.';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER guard_live_version BEFORE INSERT OR UPDATE OF live_version_id ON agents_agent
    FOR EACH ROW WHEN (NEW.live_version_id IS NOT NULL) EXECUTE FUNCTION agents_guard_live_version();
"""

DROP_AGENTS = """
DROP TRIGGER guard_live_version ON agents_agent;
DROP FUNCTION agents_guard_live_version();
DROP TRIGGER guard_slug ON agents_agent;
DROP FUNCTION agents_guard_slug();
ALTER TABLE agents_agent DROP CONSTRAINT live_version_is_of_same_agent;
"""

PUBLICATIONS = """
ALTER TABLE agents_publication ADD CONSTRAINT published_version_is_of_same_agent
    FOREIGN KEY (agent_id, version_id) REFERENCES agents_agentversion (agent_id, id);

CREATE FUNCTION agents_guard_publication() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.actor_id IS NULL AND to_jsonb(NEW) - 'actor_id' IS NOT DISTINCT FROM to_jsonb(OLD) - 'actor_id' THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'the history of publications is append-only'
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'publications_are_append_only',
              HINT = 'Publish or roll back: each adds a row.';
END $$;

CREATE TRIGGER guard_publication BEFORE UPDATE OR DELETE ON agents_publication
    FOR EACH ROW EXECUTE FUNCTION agents_guard_publication();
"""

DROP_PUBLICATIONS = """
DROP TRIGGER guard_publication ON agents_publication;
DROP FUNCTION agents_guard_publication();
ALTER TABLE agents_publication DROP CONSTRAINT published_version_is_of_same_agent;
"""


class Migration(migrations.Migration):

    dependencies = [("agents", "0001_initial")]

    operations = [
        migrations.RunSQL(VERSIONS, DROP_VERSIONS),
        migrations.RunSQL(FALLBACKS, DROP_FALLBACKS),
        migrations.RunSQL(AGENTS, DROP_AGENTS),
        migrations.RunSQL(PUBLICATIONS, DROP_PUBLICATIONS),
    ]
