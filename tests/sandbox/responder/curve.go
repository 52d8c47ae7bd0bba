package responder

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"sort"
)

// Curve is a line through points [x, y]; before the first and after the last one it is level. Two points at one x are
// a step, and the second one holds from there.
type Curve [][2]float64

// UnmarshalJSON refuses points that are not pairs, which Go would fill up or cut.
func (c *Curve) UnmarshalJSON(text []byte) error {
	var points [][]float64
	if err := json.Unmarshal(text, &points); err != nil {
		return fmt.Errorf("a curve is a list of [x, y]: %w", err)
	}
	*c = nil
	for i, point := range points {
		if len(point) != 2 {
			return fmt.Errorf("a curve is a list of [x, y]: point %d has %d numbers", i, len(point))
		}
		*c = append(*c, [2]float64(point))
	}
	return nil
}

func (c Curve) check() error {
	for i, point := range c {
		if point[1] < 0 {
			return fmt.Errorf("point %d: %g is negative", i, point[1])
		}
		if i > 0 && point[0] < c[i-1][0] {
			return errors.New("the points are to be in ascending order")
		}
	}
	return nil
}

func (c Curve) at(x float64) float64 {
	next := sort.Search(len(c), func(i int) bool { return c[i][0] > x })
	if next == 0 {
		return c[0][1]
	}
	from := c[next-1]
	if next == len(c) {
		return from[1]
	}
	to := c[next]
	return from[1] + (to[1]-from[1])*(x-from[0])/(to[0]-from[0])
}

func hash(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	return h.Sum64()
}
