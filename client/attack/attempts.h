// Attempts: what an attacker has tried, and what refused it.
#ifndef KVASIR_CLIENT_ATTACK_ATTEMPTS_H_
#define KVASIR_CLIENT_ATTACK_ATTEMPTS_H_

#include <initializer_list>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

namespace kvasir::attack {

enum class Verdict {
  kRefused,   // by what should refuse it
  kNotTried,  // there was nothing to try it on; `by` says why
  kStrange,   // it failed, but not as it is refused: whether it could succeed is not known
  kSucceeded,
};
const char* NameOf(Verdict verdict);

struct Attempt {
  std::string what;
  Verdict verdict = Verdict::kRefused;
  std::string by;  // EACCES, a status with its text, or what was reached
};

// Not thread-safe. An attempt that is tried several times (sixty descriptors) is one entry, with
// its worst verdict.
class Attempts {
 public:
  void Add(const std::string& what, Verdict verdict, const std::string& by);

  // A system call: refused if it failed with one of `wanted`. Looks at errno.
  void AddCall(const std::string& what, bool failed, std::initializer_list<int> wanted);
  // A call of the daemon: refused if its code is one of `wanted`.
  void AddStatus(const std::string& what, const absl::Status& status,
                 std::initializer_list<absl::StatusCode> wanted);

  const std::vector<Attempt>& list() const { return list_; }
  // None has succeeded, none is strange.
  bool AllRefused() const;

  // One line each, as text that FromText() reads; what cannot be read becomes a strange attempt.
  std::string ToText() const;
  static Attempts FromText(const std::string& text);

 private:
  std::vector<Attempt> list_;
};

}  // namespace kvasir::attack

#endif  // KVASIR_CLIENT_ATTACK_ATTEMPTS_H_
