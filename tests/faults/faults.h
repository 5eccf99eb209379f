// Faults: a board of the test's own, and how a program is started under it.
#ifndef KVASIR_TESTS_FAULTS_FAULTS_H_
#define KVASIR_TESTS_FAULTS_FAULTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/mapped_region.h"
#include "tests/faults/fault_board.h"

namespace kvasir::testing {

// Thread-safe. The program may be started many times; the board stays as it was set.
class Faults {
 public:
  // The board's file goes into `folder`, which outlives it.
  explicit Faults(const std::string& folder);

  // For the environment of the program.
  std::vector<std::string> Environment() const;

  // From now on calls at `place` end with `error` (an errno or kShortTransfer), all but the next
  // `spared` ones. 0: they are left alone.
  void Set(FaultPlace place, int error, int64_t spared = 0);
  void Clear();
  uint64_t Struck(FaultPlace place) { return board().at(place).struck; }

  FaultBoard& board() { return *reinterpret_cast<FaultBoard*>(map_.data()); }

 private:
  const std::string path_;
  MappedRegion map_;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_FAULTS_FAULTS_H_
