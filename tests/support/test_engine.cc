// An engine that does as much as it can until it is killed: opens sequences under several policies,
// writes rows through the views, truncates, closes. One byte on standard output for each thing
// done.
//
//   test_engine CONTROL_SOCKET DATA_SOCKET SEED [UID]
// With UID (as root) it becomes that user first. Exit code 3: the daemon refused something.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {
namespace {

const std::vector<std::string>& Policies() {
  static const std::vector<std::string> policies = {
      "full", "streamingllm:start_size=4,recent_size=20",
      "sepllm:form=static,init_cache_size=3,local_size=24",
      "sepllm:form=static,init_cache_size=2,local_size=16/40"};
  return policies;
}

[[noreturn]] void Fail(const absl::Status& status) {
  fmt::print(stderr, "test_engine: {}\n", MessageOf(status));
  std::exit(3);
}

void Tick() {
  const char byte = '.';
  if (::write(STDOUT_FILENO, &byte, 1) != 1) std::exit(0);  // nobody watches any more
}

void Step(Sequence& sequence, const ModelSpec& spec, std::mt19937_64& random) {
  const absl::StatusOr<StepView> step = sequence.Begin(1 + static_cast<uint32_t>(random() % 24));
  if (!step.ok()) {
    if (step.status().code() != absl::StatusCode::kResourceExhausted) Fail(step.status());
    (void)sequence.Close();
    return;
  }
  WriteTestRows(*step, spec);
  std::vector<uint32_t> ids(step->count);
  for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 8);
  const absl::Status committed = sequence.Commit(ids);
  if (!committed.ok()) Fail(committed);
}

[[noreturn]] void Work(const ConnectOptions& options, uint64_t seed) {
  std::mt19937_64 random(seed);
  const ModelSpec spec = TinySpec(2);
  absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(options);
  if (!session.ok()) Fail(session.status());
  Tick();
  const absl::StatusOr<ModelHandle> model = (*session)->RegisterModel(spec);
  if (!model.ok()) Fail(model.status());
  Tick();
  std::vector<Sequence> sequences;
  for (;;) {
    if (sequences.size() < 4) {
      absl::StatusOr<Sequence> opened =
          (*session)->OpenSequence({*model, Policies()[random() % Policies().size()], 0, "crash"});
      if (!opened.ok()) Fail(opened.status());
      sequences.push_back(*std::move(opened));
    }
    const size_t at = random() % sequences.size();
    Sequence& sequence = sequences[at];
    if (sequence.rows() > 400) {
      sequences.erase(sequences.begin() + static_cast<ptrdiff_t>(at));
    } else if (random() % 16 == 0 && sequence.rows() > 0) {
      (void)sequence.Truncate(sequence.rows() - 1);  // may lie below the floor
    } else {
      Step(sequence, spec, random);
      std::erase_if(sequences, [](const Sequence& each) { return each.rows() == 0; });
    }
    Tick();
  }
}

}  // namespace
}  // namespace kvasir::testing

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  if (argc > 4) {
    const auto uid = static_cast<uid_t>(std::strtoul(argv[4], nullptr, 10));
    if (::setgid(uid) != 0 || ::setuid(uid) != 0) return 2;
  }
  kvasir::ConnectOptions options;
  options.control_socket = argv[1];
  options.data_socket = argv[2];
  kvasir::testing::Work(options, std::strtoull(argv[3], nullptr, 10));
}
