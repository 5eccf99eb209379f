/*
 * kvasir_async.h: commits before the rows are written, for engines whose streams run ahead of the
 * processor. Completes kvasir.h, whose rules hold.
 *
 * The engine has a word of memory that its device can write (of CUDA: pinned or registered host
 * memory), which only grows, and writes to it behind the kernels of a step:
 *
 *   kvasir_begin(sequence, 1, &step, &error);
 *   ... kernels of the step, into `stream` ...
 *   cuStreamWriteValue64(stream, word_on_device, ++steps, 0);
 *   kvasir_timeline_point done = {word, steps};
 *   kvasir_commit_async(sequence, &id, 1, &done, &error);
 *   ... the next step at once ...
 *
 * docs/engine_guide.md says what waits for the stream and what does not.
 * Names of this header are exported under the version KVASIR_4; kvasir_abi() is then at least 4.
 */
#ifndef KVASIR_CLIENT_C_KVASIR_ASYNC_H_
#define KVASIR_CLIENT_C_KVASIR_ASYNC_H_

#include "kvasir.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A place in a stream: it has come once *word - value, as a signed number, is not negative. `word`
 * is 8 bytes, aligned, of this process, and lives until the sequence is closed, or a call that
 * waits for it has returned KVASIR_OK.
 */
typedef struct kvasir_timeline_point {
  const uint64_t* word;
  uint64_t value;
} kvasir_timeline_point;

/*
 * kvasir_commit() before the rows are written: they are, and nothing reads any more what the step's
 * views showed, once `done` has come. kvasir_commit(), _save, _publish_prefix, _truncate, _close,
 * kvasir_measure_footprint() and a kvasir_begin() that needs the next table, or is short of memory,
 * wait for what is under way of the sequence, up to the session's deadline
 * (KVASIR_DEADLINE_EXCEEDED; _close closes all the same), and then make their call. A step that was
 * begun and is not committed has to be through before the next call.
 * KVASIR_INVALID_ARGUMENT: as kvasir_commit(), or no such word. KVASIR_FAILED_PRECONDITION: the
 * policy is told of attention, which has to be known at the commit.
 */
KVASIR_API kvasir_code kvasir_commit_async(kvasir_sequence* sequence, const uint32_t* ids,
                                           size_t count, const kvasir_timeline_point* done,
                                           kvasir_error* error);
/* Likewise of one row of each, all of which one stream writes. As kvasir_commit_many(). */
KVASIR_API kvasir_code kvasir_commit_many_async(kvasir_sequence* const* sequences, size_t count,
                                                const uint32_t* ids,
                                                const kvasir_timeline_point* done, int32_t* codes,
                                                kvasir_error* error);

#ifdef __cplusplus
}
#endif

#endif /* KVASIR_CLIENT_C_KVASIR_ASYNC_H_ */
