//! Size caps and quotas, in one place.

/// Bytes of a ping's body that are kept. A longer body is cut, never refused.
pub const PING_BODY_BYTES: usize = 100_000;
/// Bytes of a JSON request body that are read; more is refused with 413.
pub const JSON_BODY_BYTES: usize = 1_000_000;
/// Bytes of a Sentry envelope that are read, before and after decompression. Its rest is discarded, never refused.
pub const ENVELOPE_BYTES: usize = 1_000_000;
/// Check-ins of one Sentry envelope that are read. Clients send one.
pub const ENVELOPE_CHECK_INS: usize = 100;
/// Bytes of an event batch after decompression.
pub const EVENT_BATCH_BYTES: usize = 4_000_000;
/// Events in one batch.
pub const EVENT_BATCH_COUNT: usize = 1_000;
/// Entries in one Beat's schedule.
pub const BEAT_ENTRIES: usize = 5_000;
/// Workers of one project: a quota against node names that change at each start.
pub const PROJECT_WORKERS: i64 = 10_000;
/// Celery applications of one project: their Beats and brokers.
pub const PROJECT_APPS: i64 = 1_000;
/// Queues of one project that are remembered.
pub const PROJECT_QUEUES: i64 = 10_000;
/// Runs of one project that are recorded as sent and that no worker has received. A quota, because any ping key can report sent runs.
pub const UNBEGUN_RUNS: i64 = 5_000;
/// Queues that one worker may name.
pub const WORKER_QUEUES: usize = 200;
/// Incarnations that are tracked for one worker's name. Of more, the server keeps those with the newest reports.
pub const WORKER_INCARNATIONS: usize = 32;
/// Characters of a monitor's name.
pub const MONITOR_NAME_CHARS: usize = 200;
/// Characters kept of a cleaned text: a host, a task, an exception's class. A queue's name may have as many.
pub const TEXT_CHARS: usize = 255;
/// Characters of a slug.
pub const SLUG_CHARS: usize = 100;
/// Characters of the name of a channel, a key or a project.
pub const NAME_CHARS: usize = 100;
/// Characters of a channel's address.
pub const ADDRESS_CHARS: usize = 2_000;
/// Characters of one template of a webhook. One expression of that length takes the parser 50 ms: its time grows with the square of the
/// length.
pub const TEMPLATE_CHARS: usize = 4_000;
/// Characters of the template of a webhook's path.
pub const TEMPLATE_PATH_CHARS: usize = 1_000;
/// Bytes of the body that a template makes.
pub const TEMPLATE_OUTPUT_BYTES: usize = 64_000;
/// Headers that a webhook adds.
pub const WEBHOOK_HEADERS: usize = 20;
/// Characters of the name of such a header.
pub const WEBHOOK_HEADER_NAME_CHARS: usize = 100;
/// Characters of the value of such a header.
pub const WEBHOOK_HEADER_CHARS: usize = 2_000;
/// Tags of one monitor.
pub const TAG_COUNT: usize = 50;
/// Characters of one tag.
pub const TAG_CHARS: usize = 100;
/// Runs in a row after which an incident opens or ends, at most.
pub const THRESHOLD_RUNS: u16 = 100;
/// Monitors of one project: a quota against a client that creates them in a loop.
pub const PROJECT_MONITORS: i64 = 100_000;
/// Tests of channels that one project may ask for in a minute.
pub const PROJECT_TESTS_A_MINUTE: u32 = 20;
/// Deliveries that one project may have sent again in a minute.
pub const PROJECT_RESENDS_A_MINUTE: u32 = 60;
/// Monitors that an alert names. It gives the others as a number.
pub const ALERT_MEMBERS: i64 = 50;
/// Mails that ask for a confirmation, of one project in a day.
pub const PROJECT_CONFIRMATIONS_A_DAY: u32 = 50;
/// Mails that ask for a confirmation, to one address in a day, whichever projects ask.
pub const ADDRESS_CONFIRMATIONS_A_DAY: u32 = 3;
/// API keys of one project that are not revoked.
pub const PROJECT_API_KEYS: i64 = 1_000;
/// Networks that may use one API key.
pub const KEY_NETWORKS: usize = 50;
/// Slugs to which one ping key may be limited.
pub const KEY_SLUGS: usize = 100;
/// Tags to which one ping key may be limited.
pub const KEY_TAGS: usize = 20;
/// Members of one project.
pub const PROJECT_MEMBERS: i64 = 500;
/// Invitations of one project that nobody has accepted yet.
pub const PROJECT_INVITATIONS: i64 = 100;
/// Invitations that one project may make in a day.
pub const PROJECT_INVITATIONS_A_DAY: u32 = 200;
/// Projects that one account may own.
pub const ACCOUNT_PROJECTS: i64 = 50;
/// Projects that one account may create in a day.
pub const ACCOUNT_PROJECTS_A_DAY: u32 = 20;
/// Channels of one project.
pub const PROJECT_CHANNELS: i64 = 500;
/// Maintenance windows of one project. Every alert checks each of them.
pub const PROJECT_WINDOWS: i64 = 200;
/// Tags of one project that are snoozed or muted. Every alert checks each of them.
pub const PROJECT_SNOOZED_TAGS: i64 = 100;
/// Rotations of one project.
pub const PROJECT_ROTATIONS: i64 = 50;
/// People of one rotation.
pub const ROTATION_PEOPLE: usize = 50;
/// Channels of one person in a rotation.
pub const PERSON_CHANNELS: usize = 10;
/// Layers of one rotation.
pub const ROTATION_LAYERS: usize = 5;
/// Overrides of one rotation.
pub const ROTATION_OVERRIDES: usize = 100;
/// Longest override of a rotation, in days. Computing a shift takes time in proportion to its length.
pub const OVERRIDE_DAYS: i64 = 366;
/// Escalation policies of one project.
pub const PROJECT_POLICIES: i64 = 50;
/// Steps of one escalation policy.
pub const POLICY_STEPS: usize = 10;
/// Targets of one step.
pub const STEP_TARGETS: usize = 10;
/// Most repetitions of an escalation policy.
pub const POLICY_REPEATS: u32 = 20;
/// Longest delay of an escalation, in seconds: a day.
pub const ESCALATION_DELAY_SECONDS: u32 = 86_400;
/// Characters kept of a user agent, a method or a remote address.
pub const HEADER_CHARS: usize = 200;
/// Open runs of one monitor. A further start is stored as a ping; it opens no run and closes none.
pub const OPEN_RUNS: usize = 100;
/// Stages of one run that are kept. Of more, the server keeps the first and the last ones.
pub const TRACE_STAGES: usize = 64;
/// Runs that one page of the history reads. It bounds the work when a filter lets few of them through.
pub const TRACES_EXAMINED: i64 = 20_000;
/// Runs from which the figures of tasks are computed.
pub const TASK_RUNS_EXAMINED: i64 = 50_000;
/// Tasks for which figures are shown.
pub const TASKS_SHOWN: i64 = 500;
/// Longest grace and longest run: 366 days, in seconds.
pub const SPAN_SECONDS: f64 = 366.0 * 86_400.0;
/// Changes of one project that the change feed keeps: the newest ones. A reader that is further behind reloads everything.
pub const PROJECT_CHANGES: i64 = 10_000;
/// Slots of a preview when the client asks for no number.
pub const PREVIEW_DEFAULT: i64 = 10;
/// Most slots of a preview. Each may take some microseconds.
pub const PREVIEW_MAX: i64 = 500;
/// Rows of a list when the client asks for no number.
pub const PAGE_DEFAULT: i64 = 50;
/// Most rows of a list.
pub const PAGE_MAX: i64 = 500;
