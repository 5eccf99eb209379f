/* The command ring of docs/shm_protocol.md: one engine, one daemon, both rings, both wake-ups.
 * run_models.py has the variants, and what is expected of each.
 *
 * Memory. Each side's stores wait in a buffer of its own that drains at any time. TSO (the default): in order. PSO: plain
 * stores to different words overtake each other and even release stores before them, but a release store waits for all
 * that went before. A fence waits until the own buffer is empty. Loads happen in program order (they are acquire, or
 * behind a fence). Stores of a process that is killed still drain.
 *
 * Engine. Submits N commands, at most CQ_CAP without completion; rings at once, or later but before it sleeps. With
 * TWO_THREADS one thread submits and another reads, and what is under way is counted between them by locked operations.
 * Daemon. Turns of at most BATCH entries; completes what it has taken at once, later in either order, or while it sleeps.
 * It looks at cq_head only where room is short.
 *
 * Checked. No lost wake-up and no deadlock (invalid end states). Each command is served once and in order, whole, and
 * answered once, whole. An honest engine never meets back-pressure. HOSTILE: an engine that stores anything anywhere
 * makes the daemon neither block nor overrun its rings nor act on a value that it did not judge. CRASH: either side is
 * killed between any two stores, and the other one ends.
 *
 * Broken on purpose, each has to be caught: NO_FENCE_{SQ,CQ}_{E,D}, NO_SECOND_LOOK_{E,D}, RELAXED_{SQ,CQ}_TAIL (PSO),
 * HEAD_EARLY (CQ_CAP 4), CREDIT_EARLY (TWO_THREADS), NO_CREDIT, NO_RING_BEFORE_SLEEP, NO_HANGUP_{E,D} (CRASH), NO_BOUND_{SQ,CQ} and
 * READ_TWICE (HOSTILE). */
#ifndef N
#define N 3                     /* commands */
#endif
#ifndef MOD
#define MOD 8                   /* counters wrap here; real ones at 2^32 */
#endif
#ifndef BATCH
#define BATCH 1
#endif
#define SQ_CAP 2                /* submission entries */
#ifndef CQ_CAP
#define CQ_CAP 2                /* completion entries, 2 or 4 */
#endif
#define FIRST (MOD - 1)         /* counters begin shortly before they wrap */
#define C(n) ((FIRST + (n)) % MOD)
#define SQ_AT(n) (C(n) % SQ_CAP)
#define CQ_AT(n) (C(n) % CQ_CAP)
#define DIST(a, b) ((a + MOD - b) % MOD)

#define SQ_TAIL 0               /* the engine's */
#define CQ_HEAD 1
#define CQ_NEED 2
#define SQ_HEAD 3               /* the daemon's */
#define CQ_TAIL 4
#define SQ_NEED 5
#define PAYLOAD0 6              /* two payloads and two entries, the engine's: a command's number in both */
#define PAYLOAD1 7
#define SUBMISSION0 8
#define SUBMISSION1 9
#define ANSWER0 10              /* likewise the daemon's */
#define ANSWER1 11
#define ANSWER2 12
#define ANSWER3 13
#define COMPLETION0 14
#define COMPLETION1 15
#define COMPLETION2 16
#define COMPLETION3 17
byte mem[18];
chan sb_e = [8] of { byte, byte };      /* store buffers: word, value */
chan sb_d = [8] of { byte, byte };
#ifdef TWO_THREADS
chan sb_s = [8] of { byte, byte };      /* of the submitting thread */
#else
#define sb_s sb_e
#endif

bool bell;                      /* eventfd in the daemon's edge-triggered epoll set */
bool fwait;                     /* the engine sleeps in FUTEX_WAIT on cq_tail */
bool dead_e, dead_d;            /* the socket shows a hang-up to the other side */
bool ended;                     /* the daemon has ended the session for a violation */
byte in_flight;                 /* of the engine: submitted and not read */
byte got;                       /* completions read */
byte answered;                  /* bit n: command n was answered */

#define ST_E(v, x) sb_e!v,x
#define ST_S(v, x) sb_s!v,x
#define ST_D(v, x) sb_d!v,x
#define FENCE_E    empty(sb_e)
#define FENCE_S    empty(sb_s)
#define FENCE_D    empty(sb_d)

#define DRAIN(sb)       atomic { sb?v,x -> mem[v] = x }
#define OVERTAKE(sb, w) atomic { sb??w,x -> mem[w] = x }

proctype DrainE() { byte v, x;
end: do
     :: DRAIN(sb_e)
#ifdef PSO
     :: OVERTAKE(sb_e, CQ_NEED)
#ifndef TWO_THREADS
     :: OVERTAKE(sb_e, PAYLOAD0) :: OVERTAKE(sb_e, PAYLOAD1)
     :: OVERTAKE(sb_e, SUBMISSION0) :: OVERTAKE(sb_e, SUBMISSION1)
#endif
#endif
#ifdef RELAXED_SQ_TAIL
     :: OVERTAKE(sb_e, SQ_TAIL)
#endif
     od }
#ifdef TWO_THREADS
proctype DrainS() { byte v, x;
end: do
     :: DRAIN(sb_s)
#ifdef PSO
     :: OVERTAKE(sb_s, PAYLOAD0) :: OVERTAKE(sb_s, PAYLOAD1)
     :: OVERTAKE(sb_s, SUBMISSION0) :: OVERTAKE(sb_s, SUBMISSION1)
#endif
     od }
#endif
proctype DrainD() { byte v, x;
end: do
     :: DRAIN(sb_d)
#ifdef PSO
     :: OVERTAKE(sb_d, SQ_NEED)
     :: OVERTAKE(sb_d, ANSWER0) :: OVERTAKE(sb_d, ANSWER1)
     :: OVERTAKE(sb_d, COMPLETION0) :: OVERTAKE(sb_d, COMPLETION1)
#if CQ_CAP == 4
     :: OVERTAKE(sb_d, ANSWER2) :: OVERTAKE(sb_d, ANSWER3)
     :: OVERTAKE(sb_d, COMPLETION2) :: OVERTAKE(sb_d, COMPLETION3)
#endif
#endif
#ifdef RELAXED_CQ_TAIL
     :: OVERTAKE(sb_d, CQ_TAIL)
#endif
     od }

#ifdef NO_CREDIT
#define HAS_CREDIT true
#else
#define HAS_CREDIT (in_flight < CQ_CAP)
#endif
#define MAY_SUBMIT (tail < N && HAS_CREDIT && DIST(C(tail), mem[SQ_HEAD]) < SQ_CAP)

inline Ring() {
#ifndef NO_FENCE_SQ_E
    FENCE_S;
#endif
    if :: mem[SQ_NEED] == 1 -> bell = 1 :: else fi;
    unrung = 0
}

inline Submit() {
    in_flight++;
    ST_S(PAYLOAD0 + SQ_AT(tail), tail + 1);
    ST_S(SUBMISSION0 + SQ_AT(tail), tail + 1);
    tail++;
    ST_S(SQ_TAIL, C(tail));                                 /* release */
    if :: Ring() :: unrung = 1 fi                           /* now, or later with others */
}

inline Read() {                                             /* there is one */
#ifdef CREDIT_EARLY
    got++; ST_E(CQ_HEAD, C(got)); in_flight--; got--;
#endif
    x = mem[COMPLETION0 + CQ_AT(got)];
    y = mem[ANSWER0 + CQ_AT(got)];
    assert(x == y && x >= 1 && x <= N);                     /* whole */
    assert((answered & (1 << x)) == 0);                     /* once */
    answered = answered | (1 << x);
    got++;
#ifndef CREDIT_EARLY
    ST_E(CQ_HEAD, C(got));                                  /* release */
#ifdef TWO_THREADS
    FENCE_E;                                                /* the count is changed by a locked operation */
#endif
    in_flight--
#endif
}

inline Sleep() {
    ST_E(CQ_NEED, 1);
#ifndef NO_FENCE_CQ_E
    FENCE_E;
#endif
#ifndef NO_SECOND_LOOK_E
    seen = mem[CQ_TAIL];
#endif
    if
    :: DIST(seen, C(got)) == 0 ->
#ifdef NO_SECOND_LOOK_E
        fwait = 1;                                          /* nobody compares the word */
#else
        atomic { if :: mem[CQ_TAIL] == seen -> fwait = 1 :: else fi };  /* the kernel does */
#endif
#ifdef NO_HANGUP_E
        !fwait
#else
        (!fwait || dead_d)                                  /* a slice ends, the socket is looked at */
#endif
    :: else
    fi;
    fwait = 0;
    ST_E(CQ_NEED, 0)
}

#ifdef HOSTILE
#define VALID N
proctype Engine() {      /* stores anything anywhere it can, rings at random, is killed */
    byte i = 0;
    do
    :: i < 4 -> i++;
       if
       :: mem[SQ_TAIL] = C(1) :: mem[SQ_TAIL] = C(2) :: mem[SQ_TAIL] = C(SQ_CAP + 1) :: mem[SQ_TAIL] = C(MOD - 1)
       :: mem[CQ_HEAD] = C(1) :: mem[CQ_HEAD] = C(MOD - 1) :: mem[CQ_NEED] = 1
       :: mem[SUBMISSION0] = VALID + 1 :: mem[SUBMISSION1] = VALID + 1 :: mem[SUBMISSION1] = 1 :: bell = 1
       fi
    :: break
    od;
    dead_e = 1
}
#else
#ifdef TWO_THREADS
proctype Submitter() {
    byte tail = 0; bool unrung;
    {
    do
    :: tail == N -> break
    :: MAY_SUBMIT -> Submit()
    :: unrung -> Ring()
    od;
    if :: unrung -> Ring() :: else fi
    } unless { dead_e || dead_d }
}
proctype Reader() {
    byte seen, x, y;
#else
proctype Engine() {
    byte tail = 0; bool unrung;
    byte seen, x, y;
#endif
    {
    do
    :: got == N -> break
#ifndef TWO_THREADS
    :: MAY_SUBMIT -> Submit()
    :: unrung -> Ring()
    :: !MAY_SUBMIT && got < N ->
#else
    :: got < N ->
#endif
        seen = mem[CQ_TAIL];
        if
        :: DIST(seen, C(got)) > 0 -> Read()
        :: else ->
#if !defined(TWO_THREADS) && !defined(NO_RING_BEFORE_SLEEP)
            if :: unrung -> Ring() :: else fi;
#endif
            Sleep()
        fi;
#ifndef NO_HANGUP_E
        if :: dead_d -> goto out :: else fi
#endif
    od;
    assert(got == N && answered == (1 << (N + 1)) - 2);
out: skip
    } unless { dead_e };
    dead_e = 1
}
#endif

inline Complete(which) {
    x = pending[which];
    pending[which] = pending[held - 1]; held--; pending[held] = 0;
    ST_D(ANSWER0 + CQ_AT(ctail), x);
    ST_D(COMPLETION0 + CQ_AT(ctail), x);
    ctail++;
    assert(DIST(C(ctail), h) <= CQ_CAP);                      /* never over what is not read */
    ST_D(CQ_TAIL, C(ctail));                                /* release */
#ifndef NO_FENCE_CQ_D
    FENCE_D;
#endif
    if :: mem[CQ_NEED] != 0 -> fwait = 0 :: else fi;        /* FUTEX_WAKE */
    x = 0
}
#define HAS_ROOM (held + DIST(C(ctail), h) < CQ_CAP)

inline LookAtHead() {
    h = mem[CQ_HEAD];
#ifndef NO_BOUND_CQ
    if
    :: DIST(h, last_h) > DIST(C(ctail), last_h) -> ended = 1; goto over     /* back, or beyond */
    :: else -> last_h = h
    fi
#endif
}

proctype Daemon() {
    byte head = 0, ctail = 0, held = 0, took, t, x, y;
    byte h = FIRST, last_h = FIRST;
    byte pending[CQ_CAP];
    {
    do
    ::  /* asleep, sq_need_wake is 1 */
endsleep: if
#ifdef NO_HANGUP_D
        :: atomic { bell -> bell = 0 }                      /* epoll_wait */
#else
        :: atomic { (bell || dead_e) -> bell = 0 }
#endif
        :: held > 0 ->                                      /* a worker has finished */
            Complete(0); goto asleep
        fi;
        if :: dead_e -> goto over :: else fi;
turn:   ST_D(SQ_NEED, 0);
        t = mem[SQ_TAIL];                                   /* copied once, then judged */
#ifndef NO_BOUND_SQ
        if :: DIST(t, C(head)) > SQ_CAP -> ended = 1; goto over :: else fi;
#endif
        took = 0;
        do
        :: took < BATCH && DIST(t, C(head)) > 0 ->
            if :: !HAS_ROOM -> LookAtHead() :: else fi;
            if
            :: HAS_ROOM
            :: else ->
#if !defined(HOSTILE) && !defined(NO_CREDIT)
                assert(false);                              /* an honest engine leaves room */
#endif
                break
            fi;
            assert(DIST(t, C(head)) <= SQ_CAP);                /* never beyond the ring */
#ifdef HEAD_EARLY
            ST_D(SQ_HEAD, C(head + 1));
#endif
            x = mem[SUBMISSION0 + SQ_AT(head)];                /* copied out */
#ifdef HOSTILE
            if :: x > VALID -> ended = 1; goto over :: else fi;
#ifdef READ_TWICE
            x = mem[SUBMISSION0 + SQ_AT(head)];
#endif
            assert(x <= VALID);
#else
            y = mem[PAYLOAD0 + SQ_AT(head)];
            assert(x == head + 1 && y == x);                /* whole, in order, once */
#endif
            head++; took++;
#ifndef HEAD_EARLY
            ST_D(SQ_HEAD, C(head));                         /* release */
#endif
            pending[held] = x; held++; x = 0; y = 0;
            do
            :: held > 0 -> Complete(0)
            :: held > 1 -> Complete(1)
            :: break                                        /* later */
            od
        :: else -> break
        od;
        if :: took == BATCH -> took = 0; t = 0; goto turn :: else fi;       /* others have their turn */
        ST_D(SQ_NEED, 1);
#ifndef NO_FENCE_SQ_D
        FENCE_D;
#endif
#ifndef NO_SECOND_LOOK_D
        t = mem[SQ_TAIL];
        if
        :: DIST(t, C(head)) > 0 ->
            if :: !HAS_ROOM -> LookAtHead() :: else fi;
            if :: HAS_ROOM -> goto turn :: else fi
        :: else
        fi;
#endif
        took = 0; t = 0;
asleep: skip
    od;
over: skip
    } unless { dead_d };
    assert(ended || dead_e || dead_d);
#ifndef HOSTILE
    assert(!ended)                                          /* an honest engine is never ended */
#endif
}

#ifdef CRASH
proctype Crash() { if :: dead_e = 1 :: dead_d = 1 :: skip fi }
#endif

init {
    atomic {                                                /* the hand-over */
        mem[SQ_TAIL] = FIRST; mem[CQ_HEAD] = FIRST; mem[SQ_HEAD] = FIRST; mem[CQ_TAIL] = FIRST;
        mem[SQ_NEED] = 1;
        run DrainE(); run DrainD(); run Daemon();
#ifdef TWO_THREADS
        run DrainS(); run Submitter(); run Reader();
#else
        run Engine();
#endif
#ifdef CRASH
        run Crash();
#endif
    }
}
