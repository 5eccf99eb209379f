// Which of the seeded defects is on in this process; 0: none. Read by the copies of the daemon's
// sources that seed_defects.py makes, and by nothing else.
#ifndef KVASIR_TESTS_SIM_SEEDED_DEFECT_H_
#define KVASIR_TESTS_SIM_SEEDED_DEFECT_H_

namespace kvasir::sim {

inline int seeded_defect = 0;

}  // namespace kvasir::sim

#endif  // KVASIR_TESTS_SIM_SEEDED_DEFECT_H_
