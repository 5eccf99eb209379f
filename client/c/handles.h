// What is behind the opaque types of kvasir.h, and the border that nothing is thrown across.
// Private to client/c/.
#ifndef KVASIR_CLIENT_C_HANDLES_H_
#define KVASIR_CLIENT_C_HANDLES_H_

#include <exception>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "base/mutex.h"
#include "client/c/convert.h"
#include "client/c/kvasir.h"
#include "client/session.h"

struct kvasir_device {
  std::shared_ptr<kvasir::c::OpenedDevice> opened;
};

// Devices outlive what has imported from them: each handle has them before what it is.
struct kvasir_session {
  const kvasir::c::DeviceRefs devices;
  const std::unique_ptr<kvasir::Session> session;
  kvasir::Mutex mutex = {};  // leaf lock
  // By model, uuids; never changed or erased, since callers have pointers into them.
  std::map<uint32_t, std::string> model_devices ABSL_GUARDED_BY(mutex) = {};
};

struct kvasir_sequence {
  kvasir::c::DeviceRefs devices;
  kvasir::Sequence sequence;
};

namespace kvasir::c {

// `run`'s status as a code. A caller in C cannot catch: what is thrown, as by an allocation that
// fails or by a count that no vector can have, is an error as well.
template <typename Run>
kvasir_code Guarded(kvasir_error* error, const Run& run) noexcept {
  try {
    return Answer(run(), error);
  } catch (const std::bad_alloc&) {
    return AnswerPlainly(KVASIR_RESOURCE_EXHAUSTED, "this process is out of memory", error);
  } catch (const std::length_error&) {
    return AnswerPlainly(KVASIR_INVALID_ARGUMENT, "a count is larger than any memory", error);
  } catch (const std::exception& thrown) {
    return AnswerPlainly(KVASIR_INTERNAL, thrown.what(), error);
  } catch (...) {
    return AnswerPlainly(KVASIR_INTERNAL, "something was thrown", error);
  }
}

}  // namespace kvasir::c

#endif  // KVASIR_CLIENT_C_HANDLES_H_
